"""Ternary weights on TernaryGemm and TernaryConv beside ONNX Runtime in float32 and in 8 bits.

For each shape: a model of one MatMul or Conv in float32, the same quantized by onnxruntime.quantization (quantize_static,
per channel, calibrated on the inputs of the run), and our operator on 2 bits per weight, called in turn in one process with
one thread. The ratios are those of medians; those of the shortest calls stand beside them. Calls are timed by the processor
time of the process, which other programs on the machine do not lengthen. `chosen` is the kernel that `gossamer.open` picks
for a file of that layer.

Claims: at least 3 times as fast as float32 for one sample above the size of the cache; where our operator is chosen, no
slower than float32 (0.97 of its speed, medians); within 1e-5 of float64.
Results: benchmarks/results/ternary.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beside import claim, in_8_bits, session, tell, write
from torch.nn.functional import conv2d

import gossamer
from gossamer import artifact, native
from gossamer.artifact import Artifact, Floats, Ints, Stored, Tensor
from gossamer.measure.latency import INPUTS, interleave
from gossamer.runtime import Port, build, ternary
from gossamer.runtime.windows import Windows

PRODUCTS = {  # outputs, inputs, batch; whether the weight in float32 is larger than the cache
    "10 x 84": (10, 84, 1, False),
    "512 x 512": (512, 512, 1, False),
    "512 x 512, batch 64": (512, 512, 64, False),
    "1024 x 1024": (1024, 1024, 1, False),
    "4096 x 4096": (4096, 4096, 1, True),
    "4096 x 4096, batch 16": (4096, 4096, 16, False),
    "4096 x 4096, batch 64": (4096, 4096, 64, False),
    "4096 x 9216 (AlexNet fc6)": (4096, 9216, 1, True),
    "4096 x 25088 (VGG-16 fc6)": (4096, 25088, 1, True),
}
CONVOLUTIONS = {  # outputs, channels, kernel, pixels, stride, groups
    "3x3, 64 channels, 56 pixels": (64, 64, 3, 56, 1, 1),
    "3x3, 128 channels, 28 pixels": (128, 128, 3, 28, 1, 1),
    "3x3, 256 channels, 14 pixels": (256, 256, 3, 14, 1, 1),
    "3x3, 512 channels, 7 pixels": (512, 512, 3, 7, 1, 1),
    "3x3, 128 channels, 32 pixels": (128, 128, 3, 32, 1, 1),
    "3x3, 128 to 256 channels, 28 pixels, stride 2": (256, 128, 3, 28, 2, 1),
    "3x3, 32 channels, 16 pixels": (32, 32, 3, 16, 1, 1),
    "1x1, 256 to 64 channels, 56 pixels": (64, 256, 1, 56, 1, 1),
    "1x1, 64 to 256 channels, 56 pixels": (256, 64, 1, 56, 1, 1),
    "1x1, 512 to 2048 channels, 7 pixels": (2048, 512, 1, 7, 1, 1),
    "7x7, 3 to 64 channels, 112 pixels, stride 2": (64, 3, 7, 112, 2, 1),
    "3x3, 64 channels in 64 groups, 28 pixels": (64, 64, 3, 28, 1, 64),
}
RESULT = Path(__file__).parent / "results" / "ternary.json"


def layer(name: str, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    if name in PRODUCTS:
        outputs, columns, batch, _ = PRODUCTS[name]
        shape: tuple[int, ...] = (outputs, columns)
        x_shape: tuple[int, ...] = (batch, columns)
        windows, y_shape = Windows(), (*x_shape[:1], outputs)
    else:
        outputs, channels, kernel, pixels, stride, group = CONVOLUTIONS[name]
        shape, x_shape = (outputs, channels // group, kernel, kernel), (1, channels, pixels, pixels)
        windows = Windows(strides=(stride,) * 2, pads=(kernel // 2,) * 4, group=group)
        side = (pixels + 2 * (kernel // 2) - kernel) // stride + 1
        y_shape = (1, outputs, side, side)
    codes = rng.integers(0, 3, shape, np.uint8)
    scale = np.array([0.02], np.float32)
    dense = (codes.astype(np.float32) - 1) * scale
    inputs = [rng.standard_normal(x_shape, np.float32) for _ in range(INPUTS)]
    ports = (
        [Port("x", ("batch", *x_shape[1:]), "float32")],
        [Port("y", ("batch", *y_shape[1:]), "float32")],
    )
    if name in PRODUCTS:
        node = build.node("MatMul", ["x", "w"], ["y"])
        dense = np.ascontiguousarray(dense.T)
    else:
        lists = windows.lists() | {"kernel_shape": shape[2:]}
        node = build.node("Conv", ["x", "w"], ["y"], integers={"group": lists.pop("group")[0]}, lists=lists)
    plain = build.model([node], *ports, {"w": dense})
    fields = ternary.packed(np.array([1, 0, 2], np.uint8)[codes], np.array([-1, 1], np.float32), scale)
    found: dict[str, Any] = {
        "shape": list(shape),
        "input": list(x_shape),
        "bytes": fields.size_bytes,
        "float32_bytes": dense.nbytes,
        "chosen": chosen(build.model([node], *ports, {}), codes, scale, transposed=name in PRODUCTS),
    }
    ours = session(ternary.model(fields, windows=windows))
    wanted = in_double(inputs[0], dense, windows)
    got = ours.run(None, {"x": inputs[0]})[0]
    found["relative_error"] = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    running = {"float32": session(plain), "int8": session(in_8_bits(plain, inputs)), "ternary": ours}
    timed = interleave(
        {key: lambda x, run=one: run.run(None, {"x": x}) for key, one in running.items()},
        inputs,
        seconds=seconds,
        clock=time.process_time,
    )
    found["median_ms"] = {key: value.median_ms for key, value in timed.items()}
    found["min_ms"] = {key: value.min_ms for key, value in timed.items()}
    for kind in ("median", "min"):
        times = found[f"{kind}_ms"]
        found[f"{kind}_ratios"] = {key: times[key] / times["ternary"] for key in ("float32", "int8")}
    shown = ("chosen", "median_ms", "median_ratios", "min_ratios")
    print("  ", {key: found[key] for key in shown}, flush=True)
    return found


def in_double(x: np.ndarray, dense: np.ndarray, windows: Windows) -> np.ndarray:
    """The layer in float64, by torch where it is a convolution."""
    if dense.ndim == 2:
        return x.astype(np.float64) @ dense
    given = torch.from_numpy(x).double(), torch.from_numpy(dense).double()
    pads = windows.pads[:2]
    return conv2d(*given, None, windows.strides, pads, windows.dilations, windows.group).numpy()


def chosen(graph: bytes, codes: np.ndarray, scale: np.ndarray, *, transposed: bool) -> str:
    """The kernel that a file of this layer runs on."""
    held = {"codes": Ints(codes.reshape(-1), 2), "scale": Floats(scale)}
    weight = Stored("uniform", codes.shape, held, options={"offset": 1})
    data = artifact.to_bytes(Artifact(graph, (Tensor("w", "w", weight, (1, 0) if transposed else None),)))
    return gossamer.open(data, threads=1).explain()[0].kernel


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    claims = []
    for name, row in found.items():
        claims.append(claim(f"{name}: relative error", row["relative_error"], most=1e-5))
        ratio = row["median_ratios"]["float32"]
        if name in PRODUCTS and PRODUCTS[name][-1]:
            claims.append(claim(f"{name}: speed / float32, one sample above the cache", ratio, least=3))
        elif row["chosen"].startswith("Ternary"):
            claims.append(claim(f"{name}: speed / float32, where it is chosen", ratio, least=0.97))
        else:
            claims.append(claim(f"{name}: speed / float32 if it ran; dense is chosen", ratio))
    return claims


def main() -> None:
    names = [*PRODUCTS, *CONVOLUTIONS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layers", nargs="*", default=names)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed calls per shape")
    options = parser.parse_args()
    logging.getLogger().setLevel(
        logging.ERROR
    )  # quantize_static advises a pre-processing that one node needs not
    found = json.loads(RESULT.read_text(encoding="utf-8"))["layers"] if RESULT.is_file() else {}
    for name in options.layers:
        print(name, flush=True)
        found[name] = layer(name, options.seconds)
        result = {
            "schema": 1,
            "variant": native.isa(),
            "layers": {key: found[key] for key in names if key in found},
            "claims": judge(found),
        }
        write(RESULT, result)
    tell(judge(found))


if __name__ == "__main__":
    main()
