"""ONNX models of a few nodes, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from gossamer.cost import Cost
from gossamer.measure.schedule import Recorded

MICROSOFT = "com.microsoft"
Shape = Sequence[int | str | None]


def node(op: str, inputs: str, outputs: str = "y", *, domain: str = "", name: str = "", **attributes: Any):
    """A node from names in one text ("x w b"; "_" for an input that is left out)."""
    names = ["" if each == "_" else each for each in inputs.split()]
    return helper.make_node(op, names, outputs.split(), domain=domain, name=name, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape | np.ndarray],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    outputs: str = "y",
    opset: int = 23,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model; an input given as an array of zeros has its type too, otherwise it is float32."""
    ports = []
    for name, given in inputs.items():
        kind = (
            helper.np_dtype_to_tensor_dtype(given.dtype)
            if isinstance(given, np.ndarray)
            else TensorProto.FLOAT
        )
        shape = given.shape if isinstance(given, np.ndarray) else given
        ports.append(helper.make_tensor_value_info(name, kind, shape))
    graph = helper.make_graph(
        list(nodes),
        "g",
        ports,
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    domains = {"": opset, MICROSOFT: 1, **{each.domain: 1 for each in (*nodes, *functions) if each.domain}}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*each) for each in domains.items()],
        functions=functions,
        ir_version=10,
    )


def data(*args: Any, **kwargs: Any) -> bytes:
    """The bytes of `model(...)`."""
    return model(*args, **kwargs).SerializeToString()


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Random numbers, none of them zero."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def total(recorded: Recorded) -> Cost:
    """The sum over all operations, nothing folded."""
    return sum((operation.cost for operation in recorded.schedule.operations), Cost())


def uncounted(recorded: Recorded) -> list[str]:
    return [operation.op for operation in recorded.schedule.operations if not operation.counted]


def ops(recorded: Recorded) -> list[str]:
    return [operation.op for operation in recorded.schedule.operations]


def trained(recorded: Recorded) -> int:
    """How many trained parameters the weights hold."""
    return sum(weight.numel for weight in recorded.weights if weight.trained)
