"""Networks of signs, whole: VGG-small with binary weights and activations, beside ONNX Runtime in float32 and in 8 bits.

    ours      the .goss file: first convolution and last layer stored in 8 bits and run in float32, all between on bits
    float32   VGG-small as it is (ReLU), exported and run by ONNX Runtime
    int8      the same quantized by onnxruntime.quantization (quantize_static, QDQ, per channel)
    dense     the .goss file with kernels="dense": the binary weights as floats

Weights are random, norms keep the signs even: what is timed does not depend on them. One sample of 32 x 32 pixels, one thread,
called in turn in one process, timed by the processor time of the process. `layers` is what `gossamer bench --explain`
shows; `edges` times the first convolution and the last layer alone.

Then single layers of many shapes, as kernels="auto" and "dense" run them: lowering may make none slower.

Claims: at least 5 times as fast as float32 and 1.6 times as fast as 8 bits; a file at least 24 times smaller than the
weights in float32; no shape more than 3 % slower than dense. Results: benchmarks/results/networks.json.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beside import claim, in_8_bits, session, tell, write
from torch import nn

import gossamer as gs
from gossamer import artifact, blocks, formats, native, runtime
from gossamer.formats import Uniform
from gossamer.measure.latency import INPUTS, interleave
from gossamer.methods import XNOR
from gossamer.models.vgg_small import VGGSmall
from gossamer.runtime import Port, build

RESULT = Path(__file__).parent / "results" / "networks.json"
EDGES = ("features.0", "linear")
LAYERS = [  # channels in and out, taps squared, pixels squared (0: a product), samples
    *((64, 64, 3, 32, 1), (64, 64, 3, 8, 1), (128, 128, 3, 28, 1), (128, 128, 3, 4, 1), (256, 256, 3, 4, 1)),
    *(
        (512, 512, 3, 2, 1),
        (256, 256, 1, 14, 1),
        (512, 512, 1, 7, 1),
        (96, 200, 3, 14, 4),
        (33, 333, 3, 9, 1),
    ),
    *((256, 256, 1, 0, 1), (1024, 1024, 1, 0, 1), (1024, 1024, 1, 0, 64), (4096, 1024, 1, 0, 1)),
]


def vgg(signs: bool) -> nn.Module:
    """VGG-small of random weights; with `signs`, all but its edges on signs."""
    torch.manual_seed(0)
    model = VGGSmall()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.normal_(1, 0.3)
                module.bias.normal_(0, 0.3)
    if signs:
        for index, module in enumerate(model.features):
            if isinstance(module, nn.ReLU):
                model.features[index] = blocks.Sign()
    convs = [f"features.{i}" for i, module in enumerate(model.features) if isinstance(module, nn.Conv2d)]
    for name in (*convs, "linear") if signs else ():
        made = Uniform(bits=8, granularity="channel") if name in EDGES else XNOR()
        formats.refine(model, f"{name}.weight", made)
    with torch.no_grad():  # statistics of the norms, so that signs are even
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        for _ in range(2):
            model(torch.randn(8, 3, 32, 32))
    return model.eval()


def network(seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1, 3, 32, 32), np.float32) for _ in range(INPUTS)]
    example = torch.from_numpy(inputs[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = gs.pack(vgg(True), folder / "signs.goss", example).size_bytes
        gs.pack(vgg(False), folder / "float.goss", example, input_names=["x"])
        plain = runtime.unpack(folder / "float.goss")
        ours = runtime.open(folder / "signs.goss", threads=1)
        dense = runtime.open(folder / "signs.goss", threads=1, kernels="dense")
    others = {"float32": session(plain), "int8": session(in_8_bits(plain, inputs))}
    agreement = [float(np.abs(ours(x) - dense(x)).max()) for x in inputs]
    timed = interleave(
        {"ours": ours, "dense": dense}
        | {kind: lambda x, run=one: run.run(None, {"x": x}) for kind, one in others.items()},
        inputs,
        seconds=seconds,
        clock=time.process_time,
    )
    weights = 4 * sum(value.numel() for value in VGGSmall().parameters())
    row: dict[str, Any] = {
        "file_bytes": size,
        "float32_bytes": weights,
        "times_smaller": weights / size,
        "largest_difference_to_dense": max(agreement),
        "median_ms": {kind: value.median_ms for kind, value in timed.items()},
        "min_ms": {kind: value.min_ms for kind, value in timed.items()},
        "layers": [asdict(row) for row in ours.explain()],
        "edges_median_ms": edges(seconds / 4),
    }
    row["median_ratios"] = {
        kind: row["median_ms"][kind] / row["median_ms"]["ours"] for kind in timed if kind != "ours"
    }
    return row


def edges(seconds: float) -> dict[str, float]:
    """The first convolution and the last layer alone, in ONNX Runtime."""
    model = VGGSmall()
    first, last = (model.features[0], model.linear)
    x, y = Port("x", (1, 3, 32, 32), "float32"), Port("y", (1, 128, 32, 32), "float32")
    flat, logits = Port("x", (1, 8192), "float32"), Port("y", (1, 10), "float32")
    conv = build.node("Conv", ["x", "w"], ["y"], lists={"pads": (1, 1, 1, 1)})
    gemm = build.node("Gemm", ["x", "w"], ["y"], integers={"transB": 1})
    models = {
        "features.0": (build.model([conv], [x], [y], {"w": first.weight.detach().numpy()}), (1, 3, 32, 32)),
        "linear": (build.model([gemm], [flat], [logits], {"w": last.weight.detach().numpy()}), (1, 8192)),
    }
    found = {}
    for name, (made, shape) in models.items():
        running = session(made)
        inputs = [np.random.default_rng(i).standard_normal(shape, np.float32) for i in range(INPUTS)]
        timed = interleave(
            {name: lambda x, run=running: run.run(None, {"x": x})},
            inputs,
            seconds=seconds,
            clock=time.process_time,
        )
        found[name] = timed[name].median_ms
    return found


def single(inner: int, outer: int, taps: int, pixels: int) -> bytes:
    """A file of one layer of signs, its input floats."""
    rng = np.random.default_rng(0)
    shape = (outer, inner, taps, taps) if pixels else (outer, inner)
    fields = {
        "signs": artifact.Ints((rng.random(int(np.prod(shape))) < 0.5).astype(np.uint8), 1),
        "scale": artifact.Floats(np.ones(outer, np.float32)),
    }
    nodes = [
        build.node("GreaterOrEqual", ["x", "zero"], ["at least"]),
        build.node("Where", ["at least", "plus", "minus"], ["sign"]),
        build.node("Conv", ["sign", "w"], ["y"], lists={"pads": (taps // 2,) * 4})
        if pixels
        else build.node("Gemm", ["sign", "w"], ["y"], integers={"transB": 1}),
    ]
    axes = (pixels, pixels) if pixels else ()
    scalars = {name: np.float32(value) for name, value in (("zero", 0), ("plus", 1), ("minus", -1))}
    model = build.model(
        nodes,
        [Port("x", ("batch", inner, *axes), "float32")],
        [Port("y", ("batch", outer, *axes), "float32")],
        {name: np.asarray(value) for name, value in scalars.items()},
    )
    tensor = artifact.Tensor("w", "w", artifact.Stored("binary", shape, fields))
    return artifact.to_bytes(artifact.Artifact(model, (tensor,)))


def layers(seconds: float) -> list[dict[str, Any]]:
    """Each of LAYERS with kernels="auto" and "dense"; one that stays dense is not timed."""
    found = []
    for inner, outer, taps, pixels, samples in LAYERS:
        data = single(inner, outer, taps, pixels)
        auto, dense = (runtime.open(data, threads=1, kernels=kernels) for kernels in ("auto", "dense"))
        (explained,) = auto.explain()
        row: dict[str, Any] = {
            "channels": [inner, outer],
            "taps": taps**2,
            "pixels": pixels**2,
            "samples": samples,
            "kernel": explained.kernel,
            "expected_ms": explained.ms,
            "expected_other_ms": explained.other_ms,
        }
        if explained.kernel.startswith("Binary"):
            shape = (samples, inner, *((pixels, pixels) if pixels else ()))
            inputs = [np.random.default_rng(i).standard_normal(shape, np.float32) for i in range(INPUTS)]
            timed = interleave(
                {"auto": auto, "dense": dense},
                inputs,
                seconds=seconds,
                warm_up_seconds=0.05,
                clock=time.process_time,
            )
            row["median_ms"] = {kind: value.median_ms for kind, value in timed.items()}
            row["dense_by_auto"] = timed["dense"].median_ms / timed["auto"].median_ms
        print("  ", row, flush=True)
        found.append(row)
    return found


def judge(vgg_small: dict[str, Any], singles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    least = min(row.get("dense_by_auto", 1.0) for row in singles)
    ratios = vgg_small["median_ratios"]
    return [
        claim("VGG-small on signs: speed / float32, batch 1, 1 thread", ratios["float32"], least=5),
        claim("VGG-small on signs: speed / 8 bits, batch 1, 1 thread", ratios["int8"], least=1.6),
        claim("VGG-small on signs: float32 weights / file", vgg_small["times_smaller"], least=24),
        claim("single layers: speed / dense, the slowest shape", least, least=0.97),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of timed calls of the networks together")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    vgg_small = network(options.seconds)
    print({key: value for key, value in vgg_small.items() if key != "layers"}, flush=True)
    singles = layers(options.seconds / 12)
    result = {
        "schema": 1,
        "variant": native.isa(),
        "vgg_small": vgg_small,
        "layers": singles,
        "claims": judge(vgg_small, singles),
    }
    write(RESULT, result)
    tell(result["claims"])


if __name__ == "__main__":
    main()
