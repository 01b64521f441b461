"""Fixed-point arithmetic: what an integer processor computes between two layers, bit for bit, in NumPy int64.

    M = S1 S2 / S3 = mantissa 2^(shift - 31)           mantissa: int in [2^30, 2^31), or 0; shift: int
    SRDHM(a, b)    = floor((a b + 2^30) / 2^31)        the high half of 2 a b, saturated to int32
    RDBP(x, s)     = x / 2^s                           rounded, halves away from zero
    requantize     = RDBP(SRDHM(acc 2^max(shift, 0), mantissa), max(-shift, 0))

The first form rounds halves towards +infinity, the second away from zero, and what is rounded twice may differ by one
from what is rounded once; `rounding="single"` is the second mode of TensorFlow Lite, (acc mantissa + 2^(30 - shift)) >>
(31 - shift). Arrays hold int32 values as int64, so that no product overflows; all functions broadcast.
Raises: OptionError for multipliers that are negative, not finite, or 2^30 and more.
Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018, arXiv:1712.05877, section 2.2 and appendices A and B; the behaviour of gemmlowp and TensorFlow Lite.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ...errors import OptionError
from ...quantizers import Grid

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Rounding = Literal["double", "single", "float"]  # "float" is the matter of float_multiplier

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
HEADROOM = 20  # bits that codes of 8 bits are shifted up by before they are rescaled


def quantize_multiplier(real: npt.ArrayLike) -> tuple[Integers, Integers]:
    """(mantissa, shift) of multipliers 0 <= real < 2^30, of the same shape; below 2^-32 they become 0."""
    values = np.asarray(real, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and (values < 2.0**30).all()):
        raise OptionError(
            f"multiplier: {values.min()} to {values.max()} received, expected 0 <= S1 S2 / S3 < 2^30. "
            "Check the scales of the layer."
        )
    fraction, exponent = np.frexp(values)
    mantissa, shift = round_half_away(fraction * 2.0**31), exponent.astype(np.int64)
    full = mantissa == 2**31  # a fraction just below 1 rounds up to 1
    mantissa, shift = np.where(full, 2**30, mantissa), shift + full
    lost = shift < -31
    return np.where(lost, 0, mantissa), np.where(lost, 0, shift)


def srdhm(a: npt.ArrayLike, b: npt.ArrayLike) -> Integers:
    """Saturating rounding doubling high multiply of int32 values; only (INT32_MIN)^2 saturates."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + 2**30) >> 31, INT32_MAX), np.int64)


def rdbp(x: npt.ArrayLike, exponent: npt.ArrayLike) -> Integers:
    """Rounding divide of int32 values by 2^exponent, 0 to 31; halves go away from zero."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + ((x & mask) > threshold), np.int64)


def requantize(
    acc: npt.ArrayLike, mantissa: npt.ArrayLike, shift: npt.ArrayLike, *, rounding: Rounding = "double"
) -> Integers:
    """acc M, rounded to int32. A left shift that leaves int32 saturates, where C leaves it undefined."""
    acc, mantissa = np.asarray(acc, np.int64), np.asarray(mantissa, np.int64)
    shift = np.asarray(shift, np.int64)
    if rounding == "single":
        right = 31 - shift
        return _saturate((acc * mantissa + (np.int64(1) << (right - 1))) >> right)
    if rounding != "double":
        raise OptionError(f"requantize: rounding is {rounding!r}, expected 'double' or 'single'.")
    raised = _saturate(acc << np.maximum(shift, 0))
    return rdbp(srdhm(raised, mantissa), np.maximum(-shift, 0))


def activation_range(grid: Grid, low: float = -np.inf, high: float = np.inf) -> tuple[int, int]:
    """The codes that a fused clamp to [low, high] keeps: ReLU is low=0, ReLU6 low=0, high=6."""

    def code(value: float) -> int:
        reach = value / grid.scale
        if not abs(reach) < 2**31:
            return INT32_MIN if reach < 0 else INT32_MAX
        return grid.zero_point + int(round_half_away(reach))

    least, most = max(grid.qmin, code(low)), min(grid.qmax, code(high))
    return min(least, grid.qmax), max(most, grid.qmin)


def rescale(codes: npt.ArrayLike, source: Grid, target: Grid, *, rounding: Rounding = "double") -> Integers:
    """The same values on another grid, before the clamp; what every input of a concatenation goes through."""
    raised = (np.asarray(codes, np.int64) - source.zero_point) << HEADROOM
    multiplier = quantize_multiplier(source.scale / target.scale / 2**HEADROOM)
    return requantize(raised, *multiplier, rounding=rounding) + target.zero_point


def add(
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    left_grid: Grid,
    right_grid: Grid,
    target: Grid,
    *,
    rounding: Rounding = "double",
) -> Integers:
    """The sum of two tensors on a third grid, before the clamp (a residual connection)."""
    common = 2 * max(left_grid.scale, right_grid.scale)
    total: Integers = np.int64(0) + np.zeros((), np.int64)
    for codes, grid in ((left, left_grid), (right, right_grid)):
        raised = (np.asarray(codes, np.int64) - grid.zero_point) << HEADROOM
        total = total + requantize(raised, *quantize_multiplier(grid.scale / common), rounding=rounding)
    multiplier = quantize_multiplier(common / target.scale / 2**HEADROOM)
    return requantize(total, *multiplier, rounding=rounding) + target.zero_point


def mean(total: npt.ArrayLike, count: npt.ArrayLike) -> Integers:
    """total / count, halves away from zero: an average pool whose input and output share one grid."""
    total, count = np.asarray(total, np.int64), np.asarray(count, np.int64)
    return np.asarray(np.sign(total) * ((2 * np.abs(total) + count) // (2 * count)), np.int64)


def round_half_away(x: npt.ArrayLike) -> Integers:
    """The nearest integer, halves away from zero, as C's std::round."""
    x = np.asarray(x, np.float64)
    whole = np.floor(np.abs(x))
    return np.asarray(np.copysign(whole + (np.abs(x) - whole >= 0.5), x), np.int64)


def _saturate(x: Integers) -> Integers:
    return np.clip(x, INT32_MIN, INT32_MAX)
