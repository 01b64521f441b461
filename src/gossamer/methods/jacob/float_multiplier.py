"""Float multiplier: what ONNX Runtime's int8 kernels compute between two layers on x86, in float32.

    requantize   acc (S1 S2 / S3)                                    convolutions and products
    rescale      ((q - Z) S) / S3                                    DequantizeLinear, QuantizeLinear
    add          (Z3 - (Z1 r1 + Z2 r2)) + q1 r1 + q2 r2, ri = Si / S3     one rounding to float32 per product and sum
    mean         (total - count Z) (S / (S3 count))

each rounded to the nearest integer, halves to even. The integers before and after are those of the fixed-point arithmetic
(fixed_point); only the rounding differs, and with it a few codes in ten thousand. An engine of integers alone cannot run
this; it shows how much of a difference to ONNX Runtime is rounding. Arrays and grids are as in fixed_point.
Source: the behaviour of ONNX Runtime 1.32 (MLAS) on processors with AVX2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...quantizers import Grid
from .fixed_point import INT32_MAX, INT32_MIN, Integers


def requantize(acc: npt.ArrayLike, scale: npt.ArrayLike, target: float) -> Integers:
    """acc scale / target; `scale` is the product of two float32 scales, exact in float64."""
    multiplier = np.asarray(scale, np.float32) / np.float32(target)
    return _nearest(np.asarray(acc, np.float32) * multiplier)


def rescale(codes: npt.ArrayLike, source: Grid, target: Grid) -> Integers:
    """The same values on another grid, before the clamp."""
    real = (np.asarray(codes, np.int64) - source.zero_point).astype(np.float32) * np.float32(source.scale)
    return _nearest(real / np.float32(target.scale)) + target.zero_point


def add(
    left: npt.ArrayLike, right: npt.ArrayLike, left_grid: Grid, right_grid: Grid, target: Grid
) -> Integers:
    """The sum of two tensors on a third grid, before the clamp."""
    first, second = (np.float32(grid.scale) / np.float32(target.scale) for grid in (left_grid, right_grid))
    shift = first * np.float32(left_grid.zero_point) + second * np.float32(right_grid.zero_point)
    total = np.asarray(np.float32(target.zero_point) - shift)
    for codes, ratio in ((left, first), (right, second)):
        # float64 holds product and sum: one rounding, as a fused multiply-add
        total = (np.asarray(codes, np.float64) * np.float64(ratio) + total.astype(np.float64)).astype(
            np.float32
        )
    return _nearest(total)


def mean(total: npt.ArrayLike, count: npt.ArrayLike, source: Grid, target: Grid) -> Integers:
    """total / count of raw codes, on the grid of the result, before the clamp."""
    count = np.asarray(count, np.int64)
    acc = np.asarray(total, np.int64) - count * source.zero_point
    multiplier = np.float32(source.scale) / (np.float32(target.scale) * count.astype(np.float32))
    return _nearest(acc.astype(np.float32) * multiplier) + target.zero_point


def _nearest(x: npt.NDArray[np.float32]) -> Integers:
    return np.clip(np.rint(x).astype(np.float64), INT32_MIN, INT32_MAX).astype(np.int64)
