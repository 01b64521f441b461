"""IntegerNetwork: runs a quantized ONNX graph the way an integer processor does.

    input -> QuantizeLinear -> [DequantizeLinear -> operator -> activation -> QuantizeLinear] ... -> output

Each bracket is one layer of integers: products in int32, the bias added to them, then the multiplier S1 S2 / S3 in
fixed point, zero point and clamp. No real number exists between the first and the last QuantizeLinear. What precedes the
first is rounded as ONNX says (half to even); an output that no QuantizeLinear follows is accumulators times their
scale. Constants (weights, biases, scales) are turned into integers once, when the graph is opened.
Raises: ModelError, with the operator's name, for a graph that leaves the integers or uses another operator.
Source: Jacob et al., arXiv:1712.05877, section 2; the ONNX QDQ form as onnxruntime.quantization writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ...quantizers import Grid
from .fixed_point import Rounding
from .operators import COMPUTE, FOLLOW, READS, Array, Node, Value
from .values import Codes, Pending
from .windows import MOVE, PLAIN, UNQUANTIZED

ACTIVATIONS = ("uint8", "int8", "uint16", "int16")


@dataclass(frozen=True)
class Run:
    """codes: what every QuantizeLinear gave, by tensor name; outputs: the results as float32, by name."""

    codes: dict[str, Array]
    outputs: dict[str, Array]


class IntegerNetwork:
    """A QDQ graph with activations of 8 or 16 bits; `model` is an ONNX file or its bytes."""

    def __init__(self, model: bytes | str | os.PathLike[str]) -> None:
        import onnx  # needed to read a file, not to run it

        graph = onnx.load_from_string(model if isinstance(model, bytes) else Path(model).read_bytes()).graph
        self.constants: dict[str, Value] = {
            item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer
        }
        self.inputs = tuple(item.name for item in graph.input if item.name not in self.constants)
        self.outputs = tuple(item.name for item in graph.output)
        self.nodes: list[Node] = []
        for given in graph.node:
            attributes = {
                item.name: _python(onnx.helper.get_attribute_value(item)) for item in given.attribute
            }
            node = Node(given.op_type, tuple(given.input), tuple(given.output), attributes)
            if node.op == "Constant":
                self.constants[node.outputs[0]] = onnx.numpy_helper.to_array(attributes["value"])
            elif all(name in self.constants or not name for name in node.inputs):
                self.constants[node.outputs[0]] = _evaluate(node, self._arguments(node, {}), "double")
            else:
                self.nodes.append(node)

    def __call__(self, *inputs: Array, rounding: Rounding = "double") -> Array | dict[str, Array]:
        """The outputs for inputs in the graph's order: an array, or a dict where there are several."""
        outputs = self.run(dict(zip(self.inputs, inputs, strict=True)), rounding=rounding).outputs
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(
        self,
        inputs: Mapping[str, Array],
        *,
        given: Mapping[str, Array] | None = None,
        rounding: Rounding = "double",
    ) -> Run:
        """Run all layers; a tensor in `given` replaces what the layer made, for those that read it.

        With the integers of another engine as `given`, `Run.codes` compares layer by layer.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise ModelError(
                f"the input {missing[0]!r} is missing; this network reads {', '.join(self.inputs)}."
            )
        values: dict[str, Value] = dict(inputs)
        codes: dict[str, Array] = {}
        for node in self.nodes:
            result = _evaluate(node, self._arguments(node, values), rounding)
            name = node.outputs[0]
            if node.op == "QuantizeLinear":
                assert isinstance(result, np.ndarray)
                codes[name] = result
                result = (given or {}).get(name, result)
            values[name] = result
        return Run(codes, {name: _float(self._value(name, values)) for name in self.outputs})

    def _arguments(self, node: Node, values: Mapping[str, Value]) -> list[Value | None]:
        return [self._value(name, values) if name else None for name in node.inputs]

    def _value(self, name: str, values: Mapping[str, Value]) -> Value:
        return self.constants[name] if name in self.constants else values[name]


def _evaluate(node: Node, arguments: list[Any], rounding: Rounding) -> Value:
    """What a node gives; errors name it."""
    try:
        if node.op == "QuantizeLinear":
            return _quantize(node, *arguments, rounding=rounding)
        if node.op == "DequantizeLinear":
            return _dequantize(node, *arguments)
        first = arguments[0]
        if node.op in PLAIN and isinstance(first, np.ndarray):
            return PLAIN[node.op](node.attributes, *arguments)
        if node.op in MOVE and isinstance(first, Codes):
            moved: Array = MOVE[node.op](node.attributes, first.codes, *arguments[1:])
            grid = first.grid
            return Codes(moved, np.asarray(grid.scale), np.asarray(grid.zero_point), first.limits)
        if node.op not in COMPUTE and node.op not in MOVE:
            raise ModelError(f"no integer form is known; known are {', '.join(sorted({*COMPUTE, *MOVE}))}")
        for operand in arguments[: READS.get(node.op, 1)]:
            if not isinstance(operand, Codes) and not (node.op in FOLLOW and isinstance(operand, Pending)):
                raise ModelError(UNQUANTIZED)
        return COMPUTE[node.op](node, *arguments)
    except ModelError as error:
        raise ModelError(f"{node}: {error}") from error


def _quantize(node: Node, x: Value, scale: Array, zero: Array | None = None, *, rounding: Rounding) -> Array:
    """Integers of the type of the zero point: from integers by integers, from real inputs and constants as ONNX says."""
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind.name not in ACTIVATIONS:
        raise ModelError(f"rounds to {kind.name}, expected one of {', '.join(ACTIVATIONS)}")
    limits = np.iinfo(kind)
    if isinstance(x, (Codes, Pending)):
        if scale.size != 1:
            raise ModelError(f"rounds an activation with {scale.size} scales; integers need one")
        offset = 0 if zero is None else int(zero.reshape(()))
        grid = Grid(float(scale.reshape(())), offset, int(limits.min), int(limits.max))
        return x.on(grid, rounding).astype(kind)
    spread = [1] * x.ndim
    if scale.size != 1:
        spread[int(node.attributes.get("axis", 1))] = -1
    shift = (
        np.zeros(spread) if zero is None else zero.astype(np.float64).reshape(spread if zero.size > 1 else ())
    )
    ratio = np.rint(x / scale.reshape(spread if scale.size > 1 else ()))
    return np.clip(ratio + shift, limits.min, limits.max).astype(kind)


def _dequantize(node: Node, codes: Array, scale: Array, zero: Array | None = None) -> Codes:
    if node.attributes.get("block_size", 0):
        raise node.refuse("block_size", "0: blocks have no integer kernel")
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu":
        raise ModelError("its input is not a tensor of integers")
    limits = np.iinfo(codes.dtype)
    offset = np.zeros(scale.shape) if zero is None else zero
    axis = int(node.attributes.get("axis", 1))
    return Codes(
        codes.astype(np.int64), scale.astype(np.float64), offset.astype(np.int64), (int(limits.min), int(limits.max)),
        axis % max(codes.ndim, 1),
    )  # fmt: skip


def _float(value: Value) -> Array:
    return value if isinstance(value, np.ndarray) else value.real().astype(np.float32)


def _python(value: Any) -> Any:
    """An attribute as Python has it: texts for bytes, tuples for lists."""
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value
