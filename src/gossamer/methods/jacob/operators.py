"""Operators of an integer network: each takes Codes and gives Codes or a value that waits for its grid.

    acc[o, p] = sum_k w[o, k] x[k, p] - Z_w colsum(x)[p] - Z_x rowsum(w)[o] + K Z_w Z_x + bias[o]

is the sum of (w - Z_w)(x - Z_x): the last three terms are constants of a channel, and the one before them vanishes for
symmetric weights. Padding holds Z_x, so that it stands for zero. Products run in float64, where integers below 2^53 are
exact, because NumPy has no fast integer product.
Raises: ModelError for operands that are not quantized and for options that no integer engine knows.
Source: Jacob et al., arXiv:1712.05877, section 2.3, equations 7 to 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ModelError
from . import fixed_point, windows
from .fixed_point import INT32_MAX, INT32_MIN, Integers, Reals
from .values import Codes, Join, Mean, Pending, Sum, Sums

Array = npt.NDArray[Any]
Value = Array | Codes | Pending


@dataclass(frozen=True)
class Node:
    """One operator of the graph: names of its tensors, and its attributes as Python values."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} -> {self.outputs[0]}"

    def refuse(self, option: str, expected: str) -> ModelError:
        """The error for an option that is not supported; who runs the node adds its name."""
        return ModelError(f"{option} is {self.attributes.get(option)!r}, expected {expected}.")


def conv(node: Node, x: Codes, weight: Codes, bias: Value | None = None) -> Sums:
    """x [N, I, ...], weight [O, I/g, ...] -> [N, O, ...]; groups, strides, dilations, any number of axes."""
    groups = int(node.attributes.get("group", 1))
    grid, out = x.grid, weight.codes.shape[0]
    frame = windows.Frame.of(node.attributes, weight.codes.shape[2:])
    taken = frame.windows(x.codes.astype(np.float64), fill=grid.zero_point)  # [N, I, out..., kernel...]
    count, places = taken.shape[0], taken.shape[2 : 2 + frame.axes]
    columns = taken.reshape(count, groups, -1, *places, frame.taps)
    columns = np.moveaxis(columns, 2, -2).reshape(count, groups, int(np.prod(places)), -1)
    rows = weight.codes.reshape(groups, out // groups, -1)
    zero = np.broadcast_to(weight.zero, out).reshape(groups, 1, -1)
    acc = multiply(columns, np.swapaxes(rows, -1, -2), grid.zero_point, zero)  # [N, g, places, O/g]
    acc = np.swapaxes(acc, -1, -2).reshape(count, out, *places)
    scale = np.broadcast_to(weight.scale * grid.scale, out).reshape(out, *([1] * frame.axes))
    return _biased(Sums(acc=acc, scale=scale), bias, axis=1)


def matmul(node: Node, left: Codes, right: Codes) -> Sums:
    """left [..., K] times right [..., K, N]; the scale of `right` may differ per column."""
    if right.scale.size != 1 and right.axis % right.codes.ndim != right.codes.ndim - 1:
        raise ModelError(f"scales along axis {right.axis} of the weight, expected one per output column.")
    acc = multiply(left.codes, right.codes, left.grid.zero_point, right.zero.reshape(-1))
    return Sums(acc=acc, scale=right.scale.reshape(-1) * left.grid.scale)


def gemm(node: Node, left: Codes, right: Codes, bias: Value | None = None) -> Sums:
    """[N, K] times [K, O], or transposed as the node says, plus a bias [O]."""
    for option in ("alpha", "beta"):
        if node.attributes.get(option, 1.0) != 1.0:
            raise node.refuse(option, "1")
    if node.attributes.get("transA", 0):
        left = replace(left, codes=left.codes.T)
    if node.attributes.get("transB", 0):
        right = replace(right, codes=right.codes.T, axis=1 - right.axis % 2)
    return _biased(matmul(node, left, right), bias, axis=-1)


def multiply(x: Integers | Reals, w: Integers, x_zero: int, w_zero: Integers) -> Integers:
    """Sum over k of (x[..., p, k] - Z_x)(w[..., k, o] - Z_w[o]), from the raw codes, as the module says."""
    acc = np.matmul(x.astype(np.float64, copy=False), w.astype(np.float64)).astype(np.int64)
    acc -= x_zero * w.sum(axis=-2, keepdims=True)
    if w_zero.any():
        acc -= w_zero * x.sum(axis=-1, keepdims=True).astype(np.int64)
        acc += x.shape[-1] * x_zero * w_zero
    return np.asarray(acc, np.int64)


def add(node: Node, left: Value, right: Value) -> Pending:
    """Two quantized tensors, or accumulators and a constant bias along the last axis."""
    if isinstance(left, Sums):
        return _biased(left, right, axis=-1)
    if isinstance(right, Sums):
        return _biased(right, left, axis=-1)
    if not (isinstance(left, Codes) and isinstance(right, Codes)):
        raise ModelError(windows.UNQUANTIZED)
    return Sum(left=left, right=right)


def concat(node: Node, *parts: Codes) -> Join:
    return Join(parts=parts, axis=int(node.attributes["axis"]))


def max_pool(node: Node, x: Codes | Sums) -> Codes | Sums:
    """On codes, or on accumulators: scales are positive."""
    if isinstance(x, Codes):
        return replace(x, codes=windows.max_pool(node.attributes, x.codes))
    return replace(x, acc=windows.max_pool(node.attributes, x.acc))


def average_pool(node: Node, x: Codes) -> Mean:
    frame = windows.Frame.of(node.attributes)
    kernel = tuple(range(-frame.axes, 0))
    total = frame.windows(x.codes, fill=0).sum(axis=kernel)
    inside = frame.windows(np.ones_like(x.codes[:1, :1]), fill=0).sum(axis=kernel)
    if node.attributes.get("count_include_pad", 0):
        total = total + (frame.taps - inside) * x.grid.zero_point
        inside = np.full_like(inside, frame.taps)
    return Mean(total=total, count=inside, grid=x.grid)


def global_average_pool(node: Node, x: Codes) -> Mean:
    return _mean(x, tuple(range(2, x.codes.ndim)), keep=True)


def reduce_mean(node: Node, x: Codes, axes: Array | None = None) -> Mean:
    given = node.attributes.get("axes", range(x.codes.ndim)) if axes is None else axes
    return _mean(x, tuple(int(axis) for axis in given), keep=bool(node.attributes.get("keepdims", 1)))


def relu(node: Node, x: Codes | Pending) -> Value:
    return x.clip(0.0, np.inf)


def clip(node: Node, x: Codes | Pending, low: Value | None = None, high: Value | None = None) -> Value:
    least = node.attributes.get("min", -np.inf) if low is None else float(_real(low).reshape(()))
    most = node.attributes.get("max", np.inf) if high is None else float(_real(high).reshape(()))
    return x.clip(least, most)


def pad(
    node: Node, x: Codes, pads: Array | None = None, value: Value | None = None, axes: Array | None = None
) -> Codes:
    """A border of a constant; the default, 0, is Z."""
    real = node.attributes.get("value", 0.0) if value is None else float(_real(value).reshape(()))
    code, _ = fixed_point.activation_range(x.grid, real)
    sizes = node.attributes["pads"] if pads is None else pads
    return replace(x, codes=windows.pad(node.attributes, x.codes, sizes, code, axes))


def _mean(x: Codes, axes: tuple[int, ...], keep: bool) -> Mean:
    total = x.codes.sum(axis=axes, keepdims=keep)
    return Mean(total=total, count=np.array(x.codes.size // max(total.size, 1)), grid=x.grid)


def _biased(sums: Sums, bias: Value | None, axis: int) -> Sums:
    """Accumulators plus a bias of 32 bits on their own scale; one on another scale is rounded to it, once."""
    if bias is None:
        return sums
    if isinstance(bias, Pending):
        raise ModelError("a bias must be a constant, not a tensor that is computed.")
    shape = [1] * sums.acc.ndim
    shape[axis] = -1
    if isinstance(bias, Codes) and np.allclose(bias.scale, sums.scale.reshape(-1), rtol=1e-6, atol=0):
        codes = bias.codes - bias.zero
    else:
        ratio = _real(bias).reshape(-1) / sums.scale.reshape(
            -1
        )  # beyond int32 where a channel is nearly dead
        codes = fixed_point.round_half_away(np.clip(ratio, INT32_MIN, INT32_MAX))
    return replace(sums, acc=sums.acc + codes.reshape(shape))


def _real(value: Value) -> Reals:
    return value.real() if isinstance(value, (Codes, Pending)) else np.asarray(value, np.float64)


COMPUTE: dict[str, Callable[..., Value]] = {
    "Add": add,
    "AveragePool": average_pool,
    "Clip": clip,
    "Concat": concat,
    "Conv": conv,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "Relu": relu,
}
READS = {
    "Conv": 2,
    "Gemm": 2,
    "MatMul": 2,
    "Add": 0,
    "Concat": None,
}  # operands that must be quantized, if not one
FOLLOW = ("Relu", "Clip", "MaxPool")  # may follow accumulators without a rounding between them
