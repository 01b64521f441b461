"""One ONNX node with its inputs, as ONNX Runtime runs it and as the torch module does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from gossamer.models.onnx import from_onnx

LATEST = 21  # of the operators that have not changed since


@dataclass(frozen=True)
class Case:
    """One node: arrays in order (None is left out), which of them are constants, and its attributes."""

    op: str
    arrays: tuple[np.ndarray | None, ...]
    constant: tuple[int, ...] = ()
    opset: int = LATEST
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5

    def model(self) -> onnx.ModelProto:
        names = ["" if array is None else f"x{at}" for at, array in enumerate(self.arrays)]
        made = [f"y{at}" for at in range(self.outputs)]
        node = helper.make_node(self.op, names, made, **self.attributes)
        given = {name: array for name, array in zip(names, self.arrays, strict=True) if array is not None}
        weights = [numpy_helper.from_array(given[f"x{at}"], f"x{at}") for at in self.constant]
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in given.items()
            if int(name[1:]) not in self.constant
        ]
        graph = helper.make_graph(
            [node], "g", ports, [onnx.ValueInfoProto(name=name) for name in made], weights
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def feed(self) -> dict[str, np.ndarray]:
        return {
            f"x{at}": array
            for at, array in enumerate(self.arrays)
            if array is not None and at not in self.constant
        }


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + np.float32(0.1)


def whole(*shape: int, low: int = -5, high: int = 6, dtype: type = np.int64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def truth(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.5


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.array(value, dtype)


def case(
    op: str,
    *arrays: np.ndarray | None,
    constant: tuple[int, ...] = (),
    opset: int = LATEST,
    outputs: int = 1,
    tolerance: float = 1e-5,
    **attributes: Any,
) -> Case:
    return Case(op, arrays, constant, opset, outputs, attributes, tolerance)


X = normal(2, 3, 4)
PICTURE = normal(2, 4, 7, 9)


def ran(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: list[np.ndarray] = session.run(None, feed)
    return result


def followed(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    network = from_onnx(model.SerializeToString())
    with torch.no_grad():
        result = network(*(torch.from_numpy(array) for array in feed.values()))
    return [value.numpy() for value in (result.values() if isinstance(result, dict) else [result])]
