"""The engine of integers against ONNX Runtime's int8 kernels: how far apart are they, layer by layer and end to end?

    python benchmarks/integer_reference.py [NETWORK ...]      writes benchmarks/results/integer-reference.json

Networks that are not named keep their figures. mobilenet-small is trained first (see int8.py).

Trained networks are packed, unpacked to ONNX and quantized by onnxruntime.quantization.quantize_static (uint8
activations, int8 weights per channel, 64 calibration inputs), or calibrated and packed by this package. Test inputs run
through ONNX Runtime, with every QuantizeLinear made an output, and through methods.jacob.

    layer by layer    each layer reads ONNX Runtime's own integers
    end to end        each layer reads what this engine made before it
    control           ONNX Runtime against itself: fused int8 kernels, and every operator as it stands, in float

`double` is the rounding of the paper and of gemmlowp, `single` the second mode of TensorFlow Lite; both are integers from the
first rounding to the last. `float` multiplies the same accumulators by the float32 multipliers of ONNX Runtime: where it
agrees and the others do not, the difference is the rounding between layers, and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from int8 import load
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from gossamer.data import Data
from gossamer.export import pack
from gossamer.measure import machine
from gossamer.methods.jacob import IntegerNetwork
from gossamer.methods.jacob.agreement import Agreement, compare, run_engine
from gossamer.methods.jacob.fixed_point import Rounding
from gossamer.runtime import unpack
from gossamer.steps import Calibrate, FreezeNorms, Quantize, apply

RESULT = Path(__file__).parent / "results" / "integer-reference.json"
CALIBRATION, BATCH = 64, 25
ROUNDINGS: tuple[Rounding, ...] = ("double", "single", "float")
NETWORKS = ("lenet5", "resnet20", "mobilenet-small")


class Samples(CalibrationDataReader):
    """Calibration inputs, one by one."""

    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self.rows = iter([{name: row[None]} for row in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.rows, None)


def by_quantize_static(model: nn.Module, data: Data, folder: Path) -> bytes:
    """Packed as floats, unpacked, and quantized by ONNX Runtime's own tool."""
    seen = data.preprocess(data.train.take(np.arange(CALIBRATION))[0])
    example = torch.from_numpy(seen[:2])
    pack(model, folder / "net.goss", example)
    (folder / "net.onnx").write_bytes(unpack(folder / "net.goss"))
    quant_pre_process(folder / "net.onnx", folder / "clean.onnx", skip_symbolic_shape=True)
    first = onnx.load(folder / "clean.onnx").graph.input[0].name
    quantize_static(
        folder / "clean.onnx",
        folder / "int8.onnx",
        Samples(first, seen),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return (folder / "int8.onnx").read_bytes()


def by_gossamer(model: nn.Module, data: Data, folder: Path) -> bytes:
    """Calibrated, quantized and packed by this package."""
    example = torch.from_numpy(data.preprocess(data.train.take(np.arange(2))[0]))
    steps = [Calibrate(samples=CALIBRATION), Quantize(bits=8, granularity="channel")]
    apply(model, steps, data, example=example)
    pack(model, folder / "int8.goss", example)
    return unpack(folder / "int8.goss")


WRITERS = {"quantize_static": by_quantize_static, "gossamer": by_gossamer}


def measure(model: bytes, data: Data, images: int) -> dict[str, Any]:
    """Everything about one graph on the first `images` of the test split."""
    network = IntegerNetwork(model)
    tables: dict[str, list[list[Agreement]]] = {}
    hits: dict[str, int] = {}
    same = dict.fromkeys(ROUNDINGS, 0)
    kernels: dict[str, int] = {}
    apart = dict.fromkeys((*ROUNDINGS, "onnxruntime float"), 0.0)
    for inputs, labels in batches(data, images):
        given = {network.inputs[0]: inputs}
        engine, plain = run_engine(model, given), run_engine(model, given, fused=False)
        kernels = engine.kernels
        tables.setdefault("control", []).append(compare(network, plain.codes, engine.codes))
        answers = {"onnxruntime": engine.outputs, "onnxruntime float": plain.outputs}
        for rounding in ROUNDINGS:
            fed = network.run(given, given=engine.codes, rounding=rounding)
            own = network.run(given, rounding=rounding)
            tables.setdefault(f"layer by layer, {rounding}", []).append(
                compare(network, fed.codes, engine.codes)
            )
            tables.setdefault(f"end to end, {rounding}", []).append(compare(network, own.codes, engine.codes))
            answers[rounding] = own.outputs
        logits = {name: next(iter(found.values())) for name, found in answers.items()}
        chosen = {name: values.argmax(1) for name, values in logits.items()}
        for name in apart:
            far = np.abs(logits[name] - logits["onnxruntime"]).max() / np.abs(logits["onnxruntime"]).max()
            apart[name] = max(apart[name], float(far))
        for name, picks in chosen.items():
            hits[name] = hits.get(name, 0) + int((picks == labels).sum())
        for rounding in ROUNDINGS:
            same[rounding] += int((chosen[rounding] == chosen["onnxruntime"]).sum())
    merged = {name: merge(parts) for name, parts in tables.items()}
    return {
        "images": images,
        "kernels": kernels,
        "top1": {name: round(count / images, 4) for name, count in hits.items()},
        "same_top1": {name: round(count / images, 4) for name, count in same.items()},
        "logits_apart": {name: round(far, 5) for name, far in apart.items()},
        "whole": {name: rounded(Agreement.over(rows, "all layers")) for name, rows in merged.items()},
        "layers": {name: [rounded(row) for row in rows] for name, rows in merged.items()},
    }


def batches(data: Data, images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, images, BATCH):
        raw, labels = data.test.take(np.arange(start, min(start + BATCH, images)))
        yield data.preprocess(raw), labels


def merge(parts: list[list[Agreement]]) -> list[Agreement]:
    """One row per layer, over all batches."""
    return [Agreement.over(rows, rows[0].name, rows[0].op) for rows in zip(*parts, strict=True)]


def rounded(row: Agreement) -> dict[str, Any]:
    return {
        key: round(value, 7) if isinstance(value, float) else value for key, value in row.to_dict().items()
    }


def claims(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """At least 99.9 % within one and all within two, per layer and end to end; and no worse than the control."""
    made = []
    for what in ("layer by layer", "end to end"):
        for rounding in ROUNDINGS:
            rows = found["layers"][f"{what}, {rounding}"]
            close, far = min(row["within_one"] for row in rows), max(row["largest"] for row in rows)
            text = "every layer: >= 99.9 % of integers within 1, all within 2"
            ours = {"within_one": close, "largest": far}
            made.append(claim(f"{name}, {what}, {rounding}", text, ours, close >= 0.999 and far <= 2))
    ours, control = (found["whole"][what]["within_one"] for what in ("end to end, single", "control"))
    text = (
        "end to end, as many integers within 1 as ONNX Runtime's float run of the same graph has (less 0.1 %)"
    )
    made.append(
        claim(
            f"{name}, against the control", text, {"ours": ours, "control": control}, ours >= control - 0.001
        )
    )
    return made


def claim(name: str, text: str, ours: dict[str, Any], holds: bool) -> dict[str, Any]:
    return {"name": name, "claim": text, "ours": ours, "holds": bool(holds)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="test inputs per network (default 200)")
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="NETWORK", help=", ".join(NETWORKS))
    chosen = parser.parse_args()
    networks: dict[str, Any] = json.loads(RESULT.read_text())["networks"] if RESULT.exists() else {}
    for network in chosen.networks:
        data, model = load(network)
        model.eval()
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            apply(model, [FreezeNorms()], example=data.preprocess(data.train.take(np.arange(2))[0]))
        for writer, write in WRITERS.items():
            name = f"{network} by {writer}"
            with TemporaryDirectory() as folder:
                graph = write(copy.deepcopy(model), data, Path(folder))
            networks[name] = {"date": machine.today(), **measure(graph, data, chosen.images)}
            print(name, networks[name]["top1"])
    proofs = [proof for name, found in networks.items() for proof in claims(name, found)]
    result = {
        "schema": 1,
        "benchmark": "integer-reference",
        "claims": proofs,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "networks": networks,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for one in proofs:
        print(f"{'holds ' if one['holds'] else 'FAILS '} {one['name']}: {one['ours']}")
    return 0 if all(one["holds"] for one in proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
