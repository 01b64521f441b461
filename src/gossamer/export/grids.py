"""grids: the grid of 256 integers that a QuantizeLinear or DequantizeLinear of the graph works with.

x = step (q - zero),  q in 0..255
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx_ir as ir

TOP = 255
ON_GRID = 1e-3  # of a step: how far a bound may lie from the grid and still be taken as a point of it


@dataclass(frozen=True)
class NodeGrid:
    """`inputs` are the two constants of the graph that say `step` and `zero`."""

    step: np.float32
    zero: int
    inputs: tuple[ir.Value, ir.Value]

    @classmethod
    def of(cls, node: ir.Node | None) -> Self | None:
        """The grid of a node that quantizes or dequantizes a whole tensor of uint8 by constants, else None."""
        if node is None or node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 3:
            return None
        scale, zero = node.inputs[1], node.inputs[2]
        if scale is None or zero is None or scale.const_value is None or zero.const_value is None:
            return None
        if scale.const_value.size != 1 or zero.const_value.dtype != ir.DataType.UINT8:
            return None
        step = np.float32(scale.const_value.numpy().ravel()[0])
        return cls(step, int(zero.const_value.numpy().ravel()[0]), (scale, zero))

    @classmethod
    def behind(cls, value: ir.Value | None) -> Self | None:
        """The grid on which a value lies because a DequantizeLinear made it, else None."""
        node = None if value is None else value.producer()
        return cls.of(node) if node is not None and node.op_type == "DequantizeLinear" else None

    def same(self, other: NodeGrid | None) -> bool:
        """Whether both stand for the same real values."""
        return other is not None and (self.step, self.zero) == (other.step, other.zero)

    def code(self, value: float, *, exact: bool) -> int | None:
        """The integer of a real value, at most the nearest end; None if `exact` and no integer stands for it."""
        with np.errstate(over="ignore"):
            ratio = float(np.float32(value) / self.step)  # rounded as QuantizeLinear does
        if not -self.zero < ratio < TOP - self.zero:  # infinities too
            return 0 if ratio <= -self.zero else TOP
        return None if exact and abs(ratio - round(ratio)) > ON_GRID else round(ratio) + self.zero

    def quantize(self, value: ir.Value) -> ir.Node:
        """A QuantizeLinear that reads `value`."""
        node = ir.node("QuantizeLinear", [value, *self.inputs])
        describe(node.outputs[0], value, ir.DataType.UINT8)
        return node

    def dequantize(self, codes: ir.Value) -> ir.Node:
        """A DequantizeLinear that reads `codes`."""
        node = ir.node("DequantizeLinear", [codes, *self.inputs])
        describe(node.outputs[0], codes, ir.DataType.FLOAT)
        return node


def describe(value: ir.Value, like: ir.Value, dtype: ir.DataType) -> None:
    """Give a new value its type, and the shape of another."""
    value.type, value.shape = ir.TensorType(dtype), like.shape


def scalar(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds, else None."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().ravel()[0])
