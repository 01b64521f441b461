"""Channel pruning: how long the analysis takes, and how much faster a network of half the multiply-adds really is.

    python benchmarks/channels.py

Analysis: `find_groups` on ResNet-50, ViT-B/16 and BERT-base, each in a process of its own; claims: at most 5 s, 20 s, 20 s,
and at most twice the memory of the model on top of what was there (peak resident size after minus before, over the bytes of
the weights). Speed: ResNet-20 cut to half of its multiply-adds (group-l2), with and without the channels that shortcuts
carry, in any width and in multiples of 8, in ONNX Runtime at batch 32 on one thread in turn with the whole network; claim:
at least 0.75 of the ratio of multiply-adds. Weights do not matter for either. Result: benchmarks/results/channels.json.
"""

from __future__ import annotations

import importlib
import json
import resource
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
from gossamer.measure.timing import time_share
from gossamer.steps import PruneChannels
from gossamer.steps.base import Context

RESULT = Path(__file__).parent / "results" / "channels.json"
LIMITS = {"resnet50": 5, "vit-b16": 20, "bert-base": 20}


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


def halved(skip: tuple[str, ...], round_to: int = 1) -> dict[str, Any]:
    model = gs.load_model("resnet20", "resnet20_cifar10").eval()
    example = torch.randn(32, 3, 32, 32)
    smaller = PruneChannels(macs=0.5, skip=skip, criterion="group-l2", round_to=round_to).apply(
        model, Context(example=example[:2])
    )
    share = measure.profile(smaller, example).macs / measure.profile(model, example).macs
    faster = 1 / time_share(smaller, model, example, threads=1, seconds=5.0)
    return {
        "skip": list(skip),
        "round_to": round_to,
        "macs_ratio": 1 / share,
        "faster": faster,
        "holds": faster >= 0.75 / share,
    }


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(analysed(sys.argv[1])))
        return
    rows = {}
    for name in LIMITS:
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(name, rows[name], flush=True)
    speed = [halved(()), halved(("conv1",)), halved((), 8), halved(("conv1",), 8)]
    print(speed)
    result = {"schema": 1, "machine": measure.machine.describe(), "analysis": rows, "speed_batch_32": speed}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
