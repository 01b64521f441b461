"""Channel pruning: how long the analysis takes, and how much faster a network of half the multiply-adds really is.

    python benchmarks/channels.py [--speed]         --speed: only the second part, the first stays as it was

Analysis: `find_groups` on ResNet-50, ViT-B/16 and BERT-base, each in a process of its own; claims: at most 5 s, 20 s, 20 s,
and at most twice the memory of the model on top of what was there (peak resident size after minus before, over the bytes of
the weights). Speed: ResNet-20 cut to half of its multiply-adds (group-l2) in the ways of WAYS, in ONNX Runtime at batch 32 on
one thread in turn with the whole network, in processor time; claim: at least 0.75 of the ratio of multiply-adds. Its kernels
for AVX-512 work on 16 channels at once, so a width of 12 costs what 16 does. Weights do not matter for either.
Result: benchmarks/results/channels.json.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import gossamer as gs
from gossamer import measure, pruning
from gossamer.export.example import Example
from gossamer.measure.timing import exported, onnx_session
from gossamer.steps import PruneChannels
from gossamer.steps.base import Context

RESULT = Path(__file__).parent / "results" / "channels.json"
LIMITS = {"resnet50": 5, "vit-b16": 20, "bert-base": 20}
CALLS = 60
LATE = {"layer2.*.conv1": 0.75, "layer3.*.conv1": 0.83}  # widths of 8 and 11; the first stage stays whole
WAYS: list[dict[str, Any]] = [
    {"skip": ["conv1"], "ratio": LATE},
    {"skip": ["conv1"], "round_to": 8},
    {"skip": [], "round_to": 1},
    {"skip": ["conv1"], "round_to": 1},
    {"skip": [], "round_to": 8},
    {"skip": [], "round_to": 16},
]


def network(name: str) -> tuple[nn.Module, Any]:
    if name == "resnet50":
        make = importlib.import_module("pytorchcv.models.resnet").resnet50
        return make().eval(), (torch.randn(1, 3, 224, 224),)
    if name == "vit-b16":
        model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
        return model.eval(), {"pixel_values": torch.randn(1, 3, 224, 224)}
    model = transformers.BertForSequenceClassification(transformers.BertConfig())
    return model.eval(), {"input_ids": torch.randint(5, 3000, (1, 128))}


def analysed(name: str) -> dict[str, Any]:
    model, example = network(name)
    with torch.no_grad():
        _ = model(**example) if isinstance(example, dict) else model(*example)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began, used = time.perf_counter(), time.process_time()
    groups = pruning.find_groups(model, example)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "limit_seconds": LIMITS[name],
        "groups": len(groups),
        "memory_over_weights": (peak - before) / weights,
        "holds": seconds <= LIMITS[name] and peak - before <= 2 * weights,
    }


def halved(options: dict[str, Any]) -> dict[str, Any]:
    model = gs.load_model("resnet20", "resnet20_cifar10").eval()
    example = torch.randn(32, 3, 32, 32)
    budget = {} if "ratio" in options else {"macs": 0.5}
    smaller = PruneChannels(**budget, **options, criterion="group-l2").apply(
        model, Context(example=example[:2])
    )
    share = measure.profile(smaller, example).macs / measure.profile(model, example).macs
    faster = in_turn(model, smaller, example)
    widths = [m.out_channels for m in smaller.modules() if isinstance(m, nn.Conv2d)]
    return {
        **options,
        "widths": widths,
        "macs_ratio": 1 / share,
        "faster": faster,
        "holds": share <= 0.5 and faster >= 0.75 / share,
    }


def in_turn(model: nn.Module, smaller: nn.Module, example: torch.Tensor) -> float:
    """How many times faster the smaller one is, by medians of processor time; the calls take turns."""
    sessions = [onnx_session(exported(one, Example.of(one, (example,))), 1) for one in (model, smaller)]
    feeds = {sessions[0].get_inputs()[0].name: example.numpy()}
    times: list[list[float]] = [[], []]
    for _ in range(CALLS):
        for session, taken in zip(sessions, times, strict=True):
            began = time.process_time()
            session.run(None, feeds)
            taken.append(time.process_time() - began)
    before, after = (statistics.median(taken[CALLS // 10 :]) for taken in times)
    return before / after


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] and sys.argv[1] in LIMITS:
        print(json.dumps(analysed(sys.argv[1])))
        return
    earlier = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    rows = earlier.get("analysis", {}) if sys.argv[1:] == ["--speed"] else {}
    for name in LIMITS if not rows else ():
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(name, rows[name], flush=True)
    speed = {json.dumps([row[key] for key in ("skip", "round_to", "ratio") if key in row]): row
             for row in earlier.get("speed_batch_32", [])}  # fmt: skip
    for options in WAYS:
        try:
            row = halved(options)
        except gs.GossamerError as error:  # widths that cannot come down to half
            row = {**options, "failed": str(error), "holds": False}
        print(row, flush=True)
        speed[json.dumps(list(options.values()))] = row
        result = {"schema": 1, "machine": measure.machine.describe(), "analysis": rows,
                  "speed_batch_32": list(speed.values())}  # fmt: skip
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
