"""norms: batch normalization with frozen statistics is one multiply and one add per channel.

    BN(x) = scale (x - mean) / sqrt(var + eps) + bias = s x + t
    s = scale / sqrt(var + eps),  t = bias - s mean

The four stored vectors [C] become two, in float64 and then float32:

    the layer before (Conv, or Gemm) has a plain weight     W' = s W, b' = s b + t: the node vanishes
    its weight carries a format, which s would break        s and t stay as NAME.scale and NAME.shift, and the
                                                            layer's plain bias moves into t
    anything else before                                    s and t stay

ONNX Runtime merges the multiply and the add into a convolution when the file is opened. A norm whose own
vectors carry a format, or that trains, is left as it is.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from . import constants
from .match import array
from .simplify import is_weight


def merge_norms(model: ir.Model, formatted: Container[str]) -> set[str]:
    """Merge every norm that can be, in place; returns the names of the new initialisers."""
    before = set(model.graph.initializers)
    for node in list(model.graph):
        if node.op_type == "BatchNormalization" and not node.attributes.get_int("training_mode", 0):
            vectors = node.inputs[1:5]
            if all(_plain(value, formatted) for value in vectors) and len(node.outputs) == 1:
                _merge(model, node, formatted)
    common.RemoveUnusedNodesPass()(model)  # the four vectors have no reader left
    return set(model.graph.initializers) - before


def _plain(value: ir.Value | None, formatted: Container[str]) -> bool:
    """Whether a value is an initialiser without a format; a vector of one channel counts."""
    return (
        value is not None
        and value.is_initializer()
        and value.const_value is not None
        and value.name not in formatted
    )


def _alone(value: ir.Value | None, formatted: Container[str]) -> bool:
    """Whether a value is a plain initialiser that a single node reads."""
    return _plain(value, formatted) and value is not None and len(value.uses()) == 1


def _merge(model: ir.Model, node: ir.Node, formatted: Container[str]) -> None:
    graph = model.graph
    source, mean_value = node.inputs[0], node.inputs[3]
    assert source is not None
    assert mean_value is not None
    assert mean_value.name is not None
    if source.shape is None:
        return
    scale, bias, mean, variance = (
        array(value).astype(np.float64) for value in node.inputs[1:5] if value is not None
    )
    s = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    t = bias - s * mean
    name = mean_value.name.rpartition(".")[0] or mean_value.name
    layer = source.producer()
    exclusive = len(source.uses()) == 1 and not source.is_graph_output()
    if layer is None or not exclusive or not _linear(layer):
        layer = None
    held = layer.inputs[2] if layer is not None and len(layer.inputs) > 2 else None
    if layer is not None and (held is None or _alone(held, formatted)):
        if held is not None:
            t = t + s * array(held).astype(np.float64)
        weight = layer.inputs[1]
        if weight is not None and is_weight(weight) and _alone(weight, formatted):
            dense = array(weight)
            rows = s.reshape(-1, *[1] * (dense.ndim - 1))
            assert weight.name is not None
            shift_name = held.name if held is not None and held.name else f"{name}.shift"
            _assign(graph, layer, 1, weight.name, (dense * rows).astype(np.float32))
            _assign(graph, layer, 2, shift_name, t.astype(np.float32))
            node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            return
        if held is not None:
            layer.resize_inputs(2)
            constants.drop(graph, held)
    rank = len(source.shape)
    shape = (len(s), *[1] * (rank - 2)) if rank > 2 else (len(s),)
    scaled = ir.node(
        "Mul", [source, constants.add(graph, f"{name}.scale", s.reshape(shape).astype(np.float32))]
    )
    shifted = ir.node(
        "Add", [scaled.outputs[0], constants.add(graph, f"{name}.shift", t.reshape(shape).astype(np.float32))]
    )
    for new in (scaled, shifted):
        new.outputs[0].shape, new.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], [scaled, shifted], node.outputs, shifted.outputs
    )


def _linear(node: ir.Node) -> bool:
    """Whether a node is W x + b with the output channels on the first axis of W, and nothing else."""
    if node.op_type == "Conv":
        return True
    plain = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_float("beta", 1.0) == 1.0
    return node.op_type == "Gemm" and plain and node.attributes.get_int("transB", 0) == 1


def _assign(graph: ir.Graph, node: ir.Node, at: int, name: str, values: np.ndarray) -> None:
    """Let input `at` of the node be a new initialiser; the old one goes."""
    if len(node.inputs) <= at:
        node.resize_inputs(at + 1)
    old = node.inputs[at]
    node.replace_input_with(at, None)
    if old is not None:
        constants.drop(graph, old)
    node.replace_input_with(at, constants.add(graph, name, values))
