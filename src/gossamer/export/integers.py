"""integers: layers whose input is quantized get the integer codes of their weights, and biases of 32 bits.

    Conv, Gemm, MatMul of  x = s_x (q_x - z),  w = s_w[c] q_w[c],  b = s_x s_w[c] q_b[c]

    y[c] = s_x s_w[c] (sum q_w (q_x - z) + q_b)        int32 within the brackets

The graph says so by a DequantizeLinear in front of the weight (scale per tensor or output channel, zero point 0) and
of the bias, whose scale is the product of the other two and is computed, not stored. A Conv must also be quantized
behind, or ONNX Runtime would compute it in floats anyway; Gemm and MatMul may end as floats.

A dead output channel (all codes 0) may have any scale: it gets the largest of the others, or what its bias needs.
A layer stays in floats, with a note, where its weight has no codes, where another reader needs the floats, or where
the sums could pass 32 bits.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, sections 2.2 and 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from . import constants
from .codes import Codes, NoCodesError, whole_numbers
from .grids import NodeGrid
from .match import Weight, array

LARGEST = 2**31 - 1
REACH = 255  # of q_x - z
DEAD_BITS = 24  # with which the bias of a dead channel is kept
SMALLEST = 2.0**-120  # a product of scales below would lose digits


@dataclass(frozen=True)
class Layer:
    """A node that can run on integers: its input's grid, and the axis of output channels in its weight."""

    node: ir.Node
    grid: NodeGrid
    axis: int

    @property
    def bias(self) -> ir.Value | None:
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def bias_values(self) -> np.ndarray:
        """float64 [O], or [1] of zero."""
        return np.zeros(1) if self.bias is None else array(self.bias).astype(np.float64)


def use_integers(
    model: ir.Model, found: dict[str, Weight], read_codes: Callable[[str], Codes]
) -> tuple[str, ...]:
    """Rewrite every layer that can be, in place, with `found` kept up to date; returns notes.

    read_codes(name): the codes of the model's weight `name`, or NoCodesError.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is not None and weight.name in found and NodeGrid.behind(node.inputs[0]) is not None:
            readers.setdefault(weight, []).append(node)
    notes = []
    for weight, nodes in readers.items():
        assert weight.name is not None
        entry = found[weight.name]
        try:
            if len(weight.uses()) != len(nodes):
                raise NoCodesError("another operator reads it in floats")
            layers = [_layer(node) for node in nodes]
            _convert(model.graph, found, weight, layers, read_codes(entry.name))
        except NoCodesError as reason:
            notes.append(f"the layer of {entry.name} runs in floats: {reason}")
    return tuple(notes)


def _layer(node: ir.Node) -> Layer:
    grid = NodeGrid.behind(node.inputs[0])
    assert grid is not None
    layer = Layer(node, grid, 0)
    if layer.bias is not None and (layer.bias.const_value is None or not layer.bias.is_initializer()):
        raise NoCodesError("its bias is computed")
    if node.op_type == "Conv":
        kinds = [reader.op_type for reader, _ in node.outputs[0].uses()]
        if kinds != ["QuantizeLinear"] or node.outputs[0].is_graph_output():
            raise NoCodesError("its output is not quantized")
        return layer
    if node.op_type == "Gemm":
        plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not plain or node.attributes.get_int("transA"):
            raise NoCodesError("its Gemm scales or turns what it reads")
        return layer if node.attributes.get_int("transB") else Layer(node, grid, 1)
    weight = node.inputs[1]
    if (
        node.op_type == "MatMul"
        and weight is not None
        and weight.shape is not None
        and len(weight.shape) == 2
    ):
        return Layer(node, grid, 1)
    raise NoCodesError(f"ONNX Runtime has no integer kernel of {node.op_type} for it")


def _convert(
    graph: ir.Graph, found: dict[str, Weight], weight: ir.Value, layers: Sequence[Layer], codes: Codes
) -> None:
    """Rewrite all layers that read one weight, or raise before anything is changed."""
    assert weight.name is not None
    entry, axis = found[weight.name], layers[0].axis
    perm = entry.perm or tuple(range(codes.values.ndim))
    if any(layer.axis != axis for layer in layers) or (codes.scale.size > 1 and perm[axis] != 0):
        raise NoCodesError("its scales do not follow the output channels")
    values = np.ascontiguousarray(codes.values.transpose(perm))
    channels = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    most = REACH * np.abs(channels.astype(np.int64)).sum(axis=1)
    scale = _revived(codes.scale, most, layers)
    biases = [_bias_codes(layer, scale, most) for layer in layers]
    del found[weight.name]
    for layer in layers:
        layer.node.replace_input_with(1, None)
    constants.drop(graph, weight)
    integers = constants.add(graph, weight.name, values)
    found[integers.name or ""] = Weight(integers, entry.name, entry.perm, codes.stored)
    step = constants.add(graph, f"{weight.name}.scale", scale if scale.size > 1 else scale.reshape(()))
    for layer, bias in zip(layers, biases, strict=True):
        given = [integers, step]
        if (
            layer.node.op_type == "Gemm"
        ):  # ONNX Runtime makes QGemm of it only with a zero point, and its exact
            # kernel for older processors (runtime.exact) only where no other weight has the same one
            given.append(
                constants.add(graph, "zero", np.zeros(scale.shape if scale.size > 1 else (), np.int8))
            )
        _read(graph, layer.node, 1, given, layer.axis)
        if layer.bias is not None:
            product = ir.node("Mul", [layer.grid.inputs[0], step])
            graph.insert_before(layer.node, product)
            held = _replaced(graph, found, layer, bias)
            _read(graph, layer.node, 2, [held, product.outputs[0]], 0)


def _revived(scale: np.ndarray, most: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """The scales, with new ones for channels whose codes are all 0: what was tiny would make a bias overflow."""
    dead = most == 0 if scale.size > 1 else np.array([not most.any()])
    floor = np.full(scale.shape, scale[~dead].max(initial=0.0))
    for layer in layers:
        needed = np.abs(layer.bias_values) / (float(layer.grid.step) * 2.0**DEAD_BITS)
        floor = np.maximum(floor, needed if scale.size > 1 else needed.max(initial=0.0))
    floor[floor == 0] = 1.0
    return np.where(dead, floor, scale).astype(np.float32)


def _bias_codes(layer: Layer, scale: np.ndarray, most: np.ndarray) -> np.ndarray:
    """int32 [O] such that every sum stays within 32 bits."""
    product = layer.grid.step * scale
    codes = np.rint(layer.bias_values / product)
    if not (product.min() >= SMALLEST and (np.abs(codes) + most <= LARGEST).all()):
        raise NoCodesError("its sums could pass 32 bits")
    return codes.astype(np.int32)


def _replaced(graph: ir.Graph, found: dict[str, Weight], layer: Layer, bias: np.ndarray) -> ir.Value:
    """A new initialiser for the bias, under the name of the old one where nobody else reads that."""
    old = layer.bias
    assert old is not None
    assert old.name is not None
    layer.node.replace_input_with(2, None)
    constants.drop(graph, old)
    if old.name not in graph.initializers:
        found.pop(old.name, None)
    new = constants.add(graph, old.name, bias)
    assert new.name is not None
    found[new.name] = Weight(new, new.name, None, whole_numbers(bias))
    return new


def _read(graph: ir.Graph, node: ir.Node, at: int, given: Sequence[ir.Value], axis: int) -> None:
    """Let input `at` of the node be dequantized from `given`: integers, scale and zero point."""
    per_channel = given[1].shape is None or len(given[1].shape) > 0
    reader = ir.node("DequantizeLinear", given, {"axis": axis} if per_channel else {})
    graph.insert_before(node, reader)
    node.replace_input_with(at, reader.outputs[0])
