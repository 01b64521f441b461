"""Ternary weights that meet 8-bit inputs: TernaryGemmInt8 and TernaryConvInt8 beside ONNX Runtime's 8-bit kernels.

For each shape: one layer between QuantizeLinear and DequantizeLinear, its ternary weights as bytes, and our operator on 2 bits
per weight with the same QuantizeLinear behind it, called in turn in one process with one thread and timed by its processor
time. The ratios are those of medians. `chosen` is the kernel that `gossamer.open` picks for a file of that layer, which tries
1, 4 and 64 samples.

Claims: where our operator is chosen, no slower (0.97 of the speed); codes differ by at most 1, where a float32 multiplier
rounds to the neighbouring one.
Results: benchmarks/results/ternary-int8.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from beside import claim, session, tell, write

import gossamer
from gossamer import artifact, native
from gossamer.artifact import Artifact, Ints, Stored, Tensor
from gossamer.measure.latency import INPUTS, interleave
from gossamer.runtime.lower_ternary_int8 import measured
from gossamer.runtime.windows import Windows

PRODUCTS = {  # outputs, inputs, batch
    "512 x 512": (512, 512, 1),
    "1024 x 1024": (1024, 1024, 1),
    "4096 x 4096": (4096, 4096, 1),
    "4096 x 4096, batch 4": (4096, 4096, 4),
    "4096 x 4096, batch 64": (4096, 4096, 64),
    "4096 x 9216 (AlexNet fc6)": (4096, 9216, 1),
}
CONVOLUTIONS = {  # outputs, channels, kernel, pixels, stride
    "3x3, 64 channels, 56 pixels": (64, 64, 3, 56, 1),
    "3x3, 128 channels, 28 pixels": (128, 128, 3, 28, 1),
    "3x3, 512 channels, 7 pixels": (512, 512, 3, 7, 1),
    "1x1, 256 to 64 channels, 56 pixels": (64, 256, 1, 56, 1),
}
RESULT = Path(__file__).parent / "results" / "ternary-int8.json"


def layer(name: str, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    if name in PRODUCTS:
        outputs, columns, batch = PRODUCTS[name]
        shape: tuple[int, ...] = (outputs, columns)
        x_shape: tuple[int, ...] = (batch, columns)
        windows = Windows()
    else:
        outputs, channels, kernel, pixels, stride = CONVOLUTIONS[name]
        shape, x_shape = (outputs, channels, kernel, kernel), (1, channels, pixels, pixels)
        windows = Windows(strides=(stride,) * 2, pads=(kernel // 2,) * 4)
    inputs = [rng.integers(0, 256, x_shape, np.uint8) for _ in range(INPUTS)]
    models = {"ternary": measured(shape, windows, True), "int8": measured(shape, windows, False)}
    running = {key: session(model) for key, model in models.items()}
    codes = [one.run(None, {"x": inputs[0]})[0].astype(int) for one in running.values()]
    timed = interleave(
        {key: lambda x, run=one: run.run(None, {"x": x}) for key, one in running.items()},
        inputs,
        seconds=seconds,
        clock=time.process_time,
    )
    times = {key: value.median_ms for key, value in timed.items()}
    found = {
        "shape": list(shape),
        "input": list(x_shape),
        "chosen": chosen(models["int8"], shape),
        "largest_difference": int(np.abs(codes[0] - codes[1]).max()),
        "median_ms": times,
        "median_ratio": times["int8"] / times["ternary"],
        "min_ms": {key: value.min_ms for key, value in timed.items()},
    }
    print("  ", found, flush=True)
    return found


def chosen(model: bytes, shape: tuple[int, ...]) -> str:
    """The kernel that a file of this layer runs on: the model with its weight stored instead of inside."""
    graph = onnx.load_from_string(model)
    held = {item.name: item for item in graph.graph.initializer}
    codes = (onnx.numpy_helper.to_array(held["w"]) + 1).astype(np.uint8).reshape(-1)
    graph.graph.initializer.remove(held["w"])
    stored = Stored("integers", shape, {"codes": Ints(codes, 2)}, options={"offset": 1})
    data = artifact.to_bytes(
        Artifact(graph.SerializeToString(), (Tensor("w", "w", stored, None, dtype="int8"),))
    )
    return gossamer.open(data, threads=1).explain()[0].kernel


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    claims = []
    for name, row in found.items():
        claims.append(claim(f"{name}: difference of codes", row["largest_difference"], most=1))
        ours = row["chosen"].startswith("Ternary")
        what = "where it is chosen" if ours else "if it ran; ONNX Runtime is chosen"
        claims.append(
            claim(f"{name}: speed / 8 bits, {what}", row["median_ratio"], least=0.97 if ours else None)
        )
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed calls per shape")
    options = parser.parse_args()
    found = {}
    for name in (*PRODUCTS, *CONVOLUTIONS):
        print(name, flush=True)
        found[name] = layer(name, options.seconds)
    write(RESULT, {"schema": 1, "variant": native.isa(), "layers": found, "claims": judge(found)})
    tell(judge(found))


if __name__ == "__main__":
    main()
