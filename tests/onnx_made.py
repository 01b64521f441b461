"""ONNX models of a few nodes, and whether the torch module agrees with ONNX Runtime on them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gossamer.models import OnnxNetwork, from_onnx
from onnx_cases import followed, normal, ran


def node(op: str, inputs: str, outputs: str, **attributes) -> onnx.NodeProto:
    """A node from names in one text ("x w _"; "_" is left out)."""
    return helper.make_node(
        op, ["" if each == "_" else each for each in inputs.split()], outputs.split(), **attributes
    )


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple],
    weights: dict[str, np.ndarray],
    *,
    outputs: str = "y",
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loaded(*args, **kwargs) -> OnnxNetwork:
    return from_onnx(model(*args, **kwargs).SerializeToString())


def agree(made: onnx.ModelProto, feed: dict[str, np.ndarray]) -> None:
    for got, want in zip(followed(made, feed), ran(made, feed), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * max(1, np.abs(want).max()), rtol=0)


def small() -> onnx.ModelProto:
    """Convolution, ReLU, mean, linear layer."""
    return model(
        [
            node("Conv", "x conv1.weight conv1.bias", "a", pads=[1, 1, 1, 1]),
            node("Relu", "a", "b"),
            node("ReduceMean", "b", "c", axes=[2, 3], keepdims=0),
            node("Gemm", "c fc.weight fc.bias", "y", transB=1),
        ],
        {"x": ("batch", 3, 8, 8)},
        {
            "conv1.weight": normal(4, 3, 3, 3),
            "conv1.bias": normal(4),
            "fc.weight": normal(5, 4),
            "fc.bias": normal(5),
        },
    )
