"""Convolutions of signs, 3 x 3, batch 1, 1 thread: BinaryConv on floats, with the packing of its input, beside ONNX Runtime.

For each shape: a model of one Conv in float32, the same quantized by onnxruntime.quantization (quantize_static, QDQ, per
channel), and BinaryConv, called in turn in one process, for every variant of ours that runs here. The peak is what registers
allow: the inner loop of the variant without a load or a store (peak.cc), measured between the shapes, the best of all rounds.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from beside import in_8_bits, session

from gossamer import native
from gossamer.measure.latency import INPUTS, interleave
from gossamer.runtime import Port, binary, build

SHAPES = {  # channels in and out, pixels squared; whether the claim on the peak is about it
    f"{channels} channels, {pixels} x {pixels} pixels": (channels, pixels, channels >= 256 and pixels >= 14)
    for channels in (128, 256, 512)
    for pixels in (7, 14, 28)
}
VARIANTS = {"avx512": 16 * 512, "avx2": 8 * 256}  # products per step of peak.cc


def peaks(folder: str) -> dict[str, Callable[[], float]]:
    """For each variant a function that gives products of signs per second, in 10^9."""
    target = Path(folder) / "peak.so"
    source = Path(__file__).with_name("peak.cc")
    subprocess.run(
        [os.environ.get("CXX", "c++"), "-O2", "-shared", "-fPIC", "-o", str(target), str(source)], check=True
    )
    library = ctypes.CDLL(str(target))

    def measured(name: str, products: int, steps: int = 200_000) -> float:
        function, best = getattr(library, f"peak_{name}"), 0.0
        function.argtypes = (ctypes.c_int64,)
        for _ in range(10):
            before = time.process_time()
            function(steps)
            best = max(best, steps * products / (time.process_time() - before) / 1e9)
        return best

    found = {}
    for name, products in VARIANTS.items():
        if native.use_isa(name) == name:
            found[name] = lambda name=name, products=products: measured(name, products)
    native.use_isa("")
    return found


def shape(channels: int, pixels: int, seconds: float) -> dict[str, Any]:
    """One row: milliseconds, ratios, and billions of products a second."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((channels, channels, 3, 3)) < 0.5, -1, 1).astype(np.float32)
    inputs = [rng.standard_normal((1, channels, pixels, pixels), np.float32) for _ in range(INPUTS)]
    lists = {"pads": (1, 1, 1, 1)}
    x, y = (Port(name, ("batch", channels, f"h{name}", f"w{name}"), "float32") for name in "xy")
    plain = build.model([build.node("Conv", ["x", "w"], ["y"], lists=lists)], [x], [y], {"w": weight})
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    ours = binary.model(weight, ones, zeros, pads=(1, 1, 1, 1))
    running = {"float32": session(plain), "int8": session(in_8_bits(plain, inputs))}
    ours_session = session(ours)
    signs = [np.where(one >= 0, 1, -1).astype(np.float32) for one in inputs]
    for name in VARIANTS:
        native.use_isa(name)
        got = ours_session.run(None, {"x": inputs[0]})[0]
        if not np.array_equal(got, running["float32"].run(None, {"x": signs[0]})[0]):
            raise SystemExit(f"{channels} channels, {pixels} pixels: {name} differs from float32")

    calls = {name: lambda x, run=one: run.run(None, {"x": x}) for name, one in running.items()}
    row: dict[str, Any] = {"channels": channels, "pixels": pixels, "products": channels**2 * 9 * pixels**2}
    row |= {"median_ms": {}, "min_ms": {}, "median_ratios": {}, "min_ratios": {}, "gproducts": {}}
    for name in VARIANTS:  # each beside both others: what changes the variant is not timed
        native.use_isa(name)
        timed = interleave(
            {name: lambda x: ours_session.run(None, {"x": x})} | calls,
            inputs,
            seconds=seconds,
            warm_up_seconds=0.2,
            clock=time.process_time,
        )
        native.use_isa("")
        for kind in ("median", "min"):
            times = {key: getattr(value, f"{kind}_ms") for key, value in timed.items()}
            row[f"{kind}_ms"][name] = times
            row[f"{kind}_ratios"][name] = {other: times[other] / times[name] for other in running}
        row["gproducts"][name] = row["products"] / timed[name].min_ms / 1e6
    return row


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def judge(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    """(claim, value, at least) over the rows of all shapes."""
    rows = [found[name] for name in SHAPES if name in found]
    if len(rows) < len(SHAPES):
        return []
    best = {name: max(row["peak_gproducts"][name] for row in rows) for name in rows[0]["peak_gproducts"]}
    claims = []
    for other, least in (("float32", 8.0), ("int8", 2.2)):
        ratios = [row["median_ratios"]["avx512"][other] for row in rows]
        claims.append((f"BinaryConv 3x3: speed / {other}, geometric mean", geometric_mean(ratios), least))
    for variant in best:
        shares = [
            row["gproducts"][variant] / best[variant]
            for name, row in found.items()
            if name in SHAPES and SHAPES[name][2]
        ]
        claims.append(
            (f"BinaryConv 3x3: least share of the peak of {variant}, larger shapes", min(shares), 0.5)
        )
    return claims
