"""Values between two roundings of an integer network: what each can become once the next grid is known.

    Codes   integers on a grid, value = scale (codes - zero)          what DequantizeLinear gives
    Sums    int32 accumulators times a scale, S1 S2 per channel       a convolution or product, before requantization
    Sum     two Codes still to be added        Join  Codes still to be concatenated
    Mean    a total of Codes, still to be divided by a count

`on(grid)` gives integers on that grid, with integer arithmetic only, or as ONNX Runtime rounds (rounding="float"); a fused
activation is a clamp that is kept until then (`clip`). `real()` are the values as float64, for a result that is not rounded.
Raises: ModelError for an accumulator that leaves int32.
Source: Jacob et al., arXiv:1712.05877, sections 2.2 to 2.4 and appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...errors import ModelError
from ...quantizers import Grid
from . import fixed_point, float_multiplier
from .fixed_point import INT32_MAX, INT32_MIN, Integers, Reals, Rounding


@dataclass(frozen=True)
class Codes:
    """codes: int64 [...]; scale, zero: scalars, or [C] along `axis` (weights and biases only); limits: of the type."""

    codes: Integers
    scale: Reals
    zero: Integers
    limits: tuple[int, int]
    axis: int = 0

    @property
    def grid(self) -> Grid:
        """The grid of a tensor with one scale."""
        if self.scale.size != 1:
            raise ModelError(
                f"{self.scale.size} scales along axis {self.axis} where integers need one. Quantize activations per "
                "tensor; only weights and biases may have a scale per channel."
            )
        return Grid(float(self.scale.reshape(())), int(self.zero.reshape(())), *self.limits)

    def spread(self, parameter: Reals | Integers) -> Reals | Integers:
        """`scale` or `zero` in a shape that broadcasts over the codes."""
        if parameter.size == 1:
            return parameter.reshape(())
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return parameter.reshape(shape)

    def on(self, grid: Grid, rounding: Rounding) -> Integers:
        return np.clip(_rescale(self, grid, rounding), grid.qmin, grid.qmax)

    def clip(self, low: float, high: float) -> Codes:
        """Clamped on its own grid: exact for 0, and within half a step of any other limit."""
        return replace(self, codes=np.clip(self.codes, *fixed_point.activation_range(self.grid, low, high)))

    def real(self) -> Reals:
        return np.asarray((self.codes - self.spread(self.zero)) * self.spread(self.scale), np.float64)


@dataclass(frozen=True, kw_only=True)
class Pending:
    """Base of values that wait for their grid; low, high: the fused activation."""

    low: float = -np.inf
    high: float = np.inf

    def on(self, grid: Grid, rounding: Rounding) -> Integers:
        limits = fixed_point.activation_range(grid, self.low, self.high)
        return np.clip(self._on(grid, rounding), *limits)

    def clip(self, low: float, high: float) -> Self:
        return replace(self, low=max(self.low, low), high=min(self.high, high))

    def real(self) -> Reals:
        return np.clip(self._real(), self.low, self.high)

    def _on(self, grid: Grid, rounding: Rounding) -> Integers:
        raise NotImplementedError

    def _real(self) -> Reals:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Sums(Pending):
    """acc: int64 [...] within int32; scale broadcasts over it."""

    acc: Integers
    scale: Reals

    def __post_init__(self) -> None:
        if self.acc.size and not INT32_MIN <= self.acc.min() <= self.acc.max() <= INT32_MAX:
            raise ModelError(
                f"an accumulator reaches {self.acc.min()} to {self.acc.max()}, which 32 bits do not hold. "
                "Check the scales of weights and bias: a bias of a nearly dead channel may be too large for its scale."
            )

    def _on(self, grid: Grid, rounding: Rounding) -> Integers:
        if rounding == "float":
            return float_multiplier.requantize(self.acc, self.scale, grid.scale) + grid.zero_point
        multiplier = fixed_point.quantize_multiplier(self.scale / grid.scale)
        return fixed_point.requantize(self.acc, *multiplier, rounding=rounding) + grid.zero_point

    def _real(self) -> Reals:
        return np.asarray(self.acc * self.scale, np.float64)


@dataclass(frozen=True, kw_only=True)
class Sum(Pending):
    """left + right."""

    left: Codes
    right: Codes

    def _on(self, grid: Grid, rounding: Rounding) -> Integers:
        left, right = self.left, self.right
        if rounding == "float":
            return float_multiplier.add(left.codes, right.codes, left.grid, right.grid, grid)
        return fixed_point.add(left.codes, right.codes, left.grid, right.grid, grid, rounding=rounding)

    def _real(self) -> Reals:
        return self.left.real() + self.right.real()


@dataclass(frozen=True, kw_only=True)
class Join(Pending):
    """Tensors one behind the other along `axis`; each is brought to the one grid of the result."""

    parts: tuple[Codes, ...]
    axis: int

    def _on(self, grid: Grid, rounding: Rounding) -> Integers:
        return np.concatenate([_rescale(part, grid, rounding) for part in self.parts], axis=self.axis)

    def _real(self) -> Reals:
        return np.concatenate([part.real() for part in self.parts], axis=self.axis)


@dataclass(frozen=True, kw_only=True)
class Mean(Pending):
    """total: int64 [...], sums of raw codes; count: how many, an integer that broadcasts; grid: theirs."""

    total: Integers
    count: Integers
    grid: Grid

    def _on(self, grid: Grid, rounding: Rounding) -> Integers:
        if rounding == "float":
            return float_multiplier.mean(self.total, self.count, self.grid, grid)
        if (grid.scale, grid.zero_point) == (self.grid.scale, self.grid.zero_point):
            return fixed_point.mean(self.total, self.count)
        reach = (self.grid.qmax - self.grid.qmin) * int(self.count.max())
        raised = max(0, min(fixed_point.HEADROOM, 31 - reach.bit_length()))
        multiplier = fixed_point.quantize_multiplier(self._scale / grid.scale / 2**raised)
        return fixed_point.requantize(self._acc << raised, *multiplier, rounding=rounding) + grid.zero_point

    def _real(self) -> Reals:
        return np.asarray(self._acc * self._scale, np.float64)

    @property
    def _acc(self) -> Integers:
        return self.total - self.count * self.grid.zero_point

    @property
    def _scale(self) -> Reals:
        return np.asarray(self.grid.scale / self.count, np.float64)


def _rescale(part: Codes, grid: Grid, rounding: Rounding) -> Integers:
    if rounding == "float":
        return float_multiplier.rescale(part.codes, part.grid, grid)
    return fixed_point.rescale(part.codes, part.grid, grid, rounding=rounding)
