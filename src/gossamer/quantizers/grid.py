"""Grid: the affine grid of integers that stands for real values.

    q = clip(round(x / scale) + zero_point, qmin, qmax)        x_hat = scale (q - zero_point)

scale > 0, and the zero point is an integer of the grid, so that 0 is exact: padding, ReLU and pruned values need
it. A range [low, high] is widened to hold 0; its ends move so that zero falls on a grid point ("nudging").
Rounding is half to even, as in ONNX QuantizeLinear.
Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", CVPR 2018, arXiv:1712.05877, section 2.1 and equation 13.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..errors import OptionError

TINY = 2.0**-60  # a range of a single value would divide 0 by 0


@dataclass(frozen=True)
class Grid:
    """`scale`, and integers qmin <= zero_point <= qmax."""

    scale: float
    zero_point: int
    qmin: int
    qmax: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0 and self.qmin <= self.zero_point <= self.qmax):
            raise OptionError(
                f"grid: scale {self.scale}, zero point {self.zero_point} in [{self.qmin}, {self.qmax}]; "
                "expected a positive finite scale and a zero point within the range."
            )

    @classmethod
    def of_range(
        cls, low: float, high: float, *, bits: int = 8, signed: bool = False, symmetric: bool = False
    ) -> Self:
        """The grid of 2^bits points that reaches from `low` to `high`, nudged.

        signed: integers [-2^(bits-1), 2^(bits-1) - 1] instead of [0, 2^bits - 1]; symmetric: zero point in the middle
        (signed: 0, and the range [-Q, Q] with Q = 2^(bits-1) - 1).
        """
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise OptionError(f"grid: range [{low}, {high}], expected finite low <= high.")
        low, high = min(low, 0.0), max(high, 0.0)
        qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        if symmetric:
            reach = max(-low, high, TINY)
            if signed:
                return cls(reach / qmax, 0, -qmax, qmax)
            middle = 2 ** (bits - 1)
            return cls(reach / (qmax - middle), middle, qmin, qmax)
        scale = max((high - low) / (qmax - qmin), TINY)
        zero_point = round(min(max(qmin - low / scale, qmin), qmax))
        return cls(scale, zero_point, qmin, qmax)

    @property
    def low(self) -> float:
        """The smallest value of the grid."""
        return self.scale * (self.qmin - self.zero_point)

    @property
    def high(self) -> float:
        """The largest value of the grid."""
        return self.scale * (self.qmax - self.zero_point)

    def codes(self, x: Tensor) -> Tensor:
        """Integers as floats, the shape of `x`."""
        return ((x / self.scale).round() + self.zero_point).clamp(self.qmin, self.qmax)

    def fake(self, x: Tensor) -> Tensor:
        """The nearest points of the grid; the gradient passes inside the range and is 0 outside."""
        inside = x.clamp(self.low, self.high)
        return inside + ((self.codes(x) - self.zero_point) * self.scale - inside).detach()


@torch.library.custom_op("gossamer::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    """What a traced graph holds in the place of a quantizer; the exporter writes QuantizeLinear, DequantizeLinear."""
    return Grid(scale, zero_point, qmin, qmax).fake(x).clone()


@fake_quantize.register_fake
def _(x: Tensor, scale: float, zero_point: int, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x)
