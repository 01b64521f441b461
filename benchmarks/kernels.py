"""Our operators beside ONNX Runtime in float32 and in 8 bits: SparseGemm, and convolutions of signs (kernels_binary.py).

The sparse layers are those of EIE's table (random weights of its density, inputs with its share of zeros). For each: a model of
one MatMul in float32, the same quantized by onnxruntime.quantization (quantize_static, per channel, calibrated on the
inputs of the run), and SparseGemm on the stored bytes, called in turn in one process with as many threads. The ratios are
those of medians; those of the shortest calls stand beside them. Calls of one thread are timed by the processor time of the
process, which other programs on the machine do not lengthen; calls of several by the clock on the wall.

Claims (batch 1, 1 thread), sparse: at least 5 times as fast as float32 and 1.5 times as fast as 8 bits; at most 1.25 stored
bytes per kept weight, column counts included and before entropy coding; within 1e-5 of float64. Four bits of code and the
entropy of the positions are 1.257 bytes at 4 %, so that no such code can hold that claim there; it is recorded as failed.
Signs: at least 8 times as fast as float32 and 2.2 times as fast as 8 bits, the geometric mean over all shapes; at least half
of what registers allow on the larger ones.
Results: benchmarks/results/kernels.json.
Source: Han et al., "EIE", ISCA 2016, arXiv:1602.01528, table III (layers and densities).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import kernels_binary
import numpy as np
from beside import claim, in_8_bits, session, tell, write

from gossamer import native
from gossamer.measure.latency import INPUTS, interleave
from gossamer.runtime import Port, build, sparse

LAYERS = {  # rows, columns, density of the weights, of the inputs; whether the claims are about it
    "AlexNet fc6": (4096, 9216, 0.09, 0.35, True),
    "AlexNet fc7": (4096, 4096, 0.09, 0.35, True),
    "VGG-16 fc6": (4096, 25088, 0.04, 0.18, True),
    "4096 x 4096 at 9 %, no zero input": (4096, 4096, 0.09, 1.0, False),
    "4096 x 4096 at 25 %": (4096, 4096, 0.25, 0.35, False),
    "512 x 512 at 9 %": (512, 512, 0.09, 0.35, False),
}
CASES = ((1, 1), (16, 1), (64, 1))  # batch, threads
RESULT = Path(__file__).parent / "results" / "kernels.json"


def layer(rows: int, columns: int, density: float, active: float, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    positions = np.flatnonzero(rng.random(rows * columns, np.float32) < density)
    codes = rng.integers(0, sparse.CODES, positions.size, np.uint8)
    codebook = rng.normal(0, 0.02, sparse.CODES).astype(np.float32)
    dense = np.zeros(rows * columns, np.float32)
    dense[positions] = codebook[codes]
    dense = dense.reshape(rows, columns)
    batch = max(samples for samples, _ in CASES)
    inputs = []
    for _ in range(INPUTS):
        x = np.abs(rng.standard_normal((batch, columns), np.float32))
        inputs.append(x * (rng.random(x.shape, np.float32) < active))
    ports = [Port("x", ("batch", columns), "float32")], [Port("y", ("batch", rows), "float32")]
    plain = build.model(
        [build.node("MatMul", ["x", "w"], ["y"])], *ports, {"w": np.ascontiguousarray(dense.T)}
    )
    fields = sparse.packed(positions, codes, codebook, (rows, columns))
    found: dict[str, Any] = {
        "shape": [rows, columns],
        "density": positions.size / dense.size,
        "active_inputs": float(np.mean([np.count_nonzero(x[:1]) / columns for x in inputs])),
        "kept_weights": int(positions.size),
        "stored_bytes": fields.size_bytes,
        "bytes_per_kept_weight": fields.size_bytes / positions.size,
        "entropy_bound_bytes": entropy_bytes(density),
    }
    wanted = inputs[0][:1].astype(np.float64) @ dense.T.astype(np.float64)
    got = session(sparse.model(fields), 1).run(None, {"x": inputs[0][:1]})[0]
    found["relative_error"] = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    small = in_8_bits(plain, inputs)
    found["cases"] = [
        case(plain, small, (positions, codes, codebook, (rows, columns)), inputs, *one, seconds)
        for one in CASES
    ]
    return found


def case(
    plain: bytes,
    small: bytes,
    weight: Any,
    inputs: list[np.ndarray],
    batch: int,
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    models = {
        "float32": plain,
        "int8": small,
        "sparse": sparse.model(sparse.packed(*weight, streams=threads)),
    }
    running = {name: session(model, threads) for name, model in models.items()}
    timed = interleave(
        {name: lambda x, run=one: run.run(None, {"x": x}) for name, one in running.items()},
        [x[:batch] for x in inputs],
        seconds=seconds,
        clock=time.process_time if threads == 1 else time.perf_counter,
    )
    row: dict[str, Any] = {"batch": batch, "threads": threads}
    row["median_ms"] = {name: value.median_ms for name, value in timed.items()}
    row["min_ms"] = {name: value.min_ms for name, value in timed.items()}
    for kind in ("median", "min"):
        times = row[f"{kind}_ms"]
        row[f"{kind}_ratios"] = {name: times[name] / times["sparse"] for name in ("float32", "int8")}
    print(
        "  ",
        {key: row[key] for key in ("batch", "threads", "median_ms", "median_ratios", "min_ratios")},
        flush=True,
    )
    return row


def entropy_bytes(density: float) -> float:
    """Bytes per kept weight that no code of random positions and 16 equally frequent values can beat."""
    bits = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    return float((bits / density + 4) / 8)


def judge(found: dict[str, Any], signs: dict[str, Any]) -> list[dict[str, Any]]:
    claims = []
    for name, row in found.items():
        claims.append(claim(f"{name}: relative error", row["relative_error"], most=1e-5))
        if not LAYERS[name][-1]:
            continue
        ratios = row["cases"][0]["median_ratios"]
        claims.append(claim(f"{name}: speed / float32, batch 1, 1 thread", ratios["float32"], least=5))
        claims.append(claim(f"{name}: speed / 8 bits, batch 1, 1 thread", ratios["int8"], least=1.5))
        claims.append(claim(f"{name}: stored bytes per kept weight", row["bytes_per_kept_weight"], most=1.25))
    for name, value, least in kernels_binary.judge(signs):
        claims.append(claim(name, value, least=least))
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layers", nargs="*", default=[*LAYERS, *kernels_binary.SHAPES])
    parser.add_argument("--seconds", type=float, default=6.0, help="of timed calls per case")
    options = parser.parse_args()
    logging.getLogger().setLevel(
        logging.ERROR
    )  # quantize_static advises a pre-processing that one node does not need
    held = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    found, signs = held.get("layers", {}), held.get("signs", {})
    with tempfile.TemporaryDirectory() as folder:
        peaks = kernels_binary.peaks(folder)
        for name in options.layers:
            print(name, flush=True)
            if name in LAYERS:
                found[name] = layer(*LAYERS[name][:4], options.seconds)
            else:
                channels, pixels, _ = kernels_binary.SHAPES[name]
                signs[name] = kernels_binary.shape(channels, pixels, options.seconds)
                signs[name]["peak_gproducts"] = {variant: peak() for variant, peak in peaks.items()}
                print("  ", signs[name]["median_ratios"], signs[name]["gproducts"], flush=True)
            result = {
                "schema": 2,
                "variant": native.isa(),
                "layers": {key: found[key] for key in LAYERS if key in found},
                "signs": {key: signs[key] for key in kernels_binary.SHAPES if key in signs},
                "claims": judge(found, signs),
            }
            write(RESULT, result)
    tell(judge(found, signs))


if __name__ == "__main__":
    main()
