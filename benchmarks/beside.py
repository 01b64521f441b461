"""What stands beside our operators: ONNX Runtime in float32 and in 8 bits; and how a benchmark judges and keeps its figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from gossamer import native
from gossamer.measure import machine


class Reader(CalibrationDataReader):
    """The inputs of the run, the first sample of each, one by one."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        self.left = iter([{"x": x[:1]} for x in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def session(source: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A model as ONNX Runtime runs it, with our operators known."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.register_custom_ops_library(str(native.path()))
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def in_8_bits(model: bytes, inputs: list[np.ndarray]) -> bytes:
    """The model with input x by quantize_static: QDQ, int8 weights per channel, uint8 activations, min-max over `inputs`."""
    with tempfile.TemporaryDirectory() as folder:
        source, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_static(
            str(source),
            str(small),
            Reader(inputs),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        return small.read_bytes()


def claim(
    name: str, value: float, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """A figure and its limits; without a limit it is only told."""
    holds = (least is None or value >= least) and (most is None or value <= most)
    return {"name": name, "value": value, "at_least": least, "at_most": most, "holds": holds}


def write(path: Path, result: dict[str, Any]) -> None:
    """Keep a result, with the machine, the versions and the day."""
    stamp = {"machine": machine.describe(), "versions": machine.versions(), "date": machine.today()}
    path.write_text(json.dumps(result | stamp, indent=1) + "\n", encoding="utf-8")


def tell(claims: Iterable[dict[str, Any]]) -> None:
    """A line for each claim."""
    for row in claims:
        print("holds" if row["holds"] else "FAILS", row["name"], f"{row['value']:.4g}")
