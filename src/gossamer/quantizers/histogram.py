"""Histogram: counts of values seen so far, in bounded memory and without losing one when the range grows.

    bin k counts the values in [k w, (k + 1) w),  w = 2^e

w is the smallest power of two with which at most 2 * bins bins cover all values and zero, so between `bins` and twice
as many are in use. Since bins are aligned with zero and doubling w merges them in pairs, the counts depend on
the values alone: not on their order, on how they were cut into batches, or on the number of threads.
Raises: MeasureError when a value is NaN or infinite.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import MeasureError

CHUNK = 2**20  # values binned at once
SMALLEST = -1000  # the exponent while every value is zero


def finite_range(x: Tensor) -> tuple[float, float]:
    """The smallest and largest value; (0, 0) of an empty tensor."""
    if not x.numel():
        return 0.0, 0.0
    low, high = (float(end) for end in x.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(x)).sum())
        raise MeasureError(
            f"{bad} of {x.numel()} observed values are NaN or infinite; expected finite activations. "
            "Check the inputs, and the weights of the layers before."
        )
    return low, high


class Histogram:
    """`counts[i]` values lie in bin `first + i` of width 2^exponent; `low` and `high` are exact."""

    def __init__(self, bins: int = 2048) -> None:
        self.bins = bins
        self.low = self.high = 0.0
        self.exponent = SMALLEST
        self.first = 0
        self.counts = np.zeros(1, np.int64)
        self._empty = True

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    @property
    def edges(self) -> np.ndarray:
        """float64 [n + 1]; exact, as the bins are aligned with powers of two."""
        return (self.first + np.arange(self.counts.size + 1)) * self.width

    @property
    def centers(self) -> np.ndarray:
        """float64 [n]."""
        return self.edges[:-1] + self.width / 2

    def add(self, x: Tensor) -> None:
        """Count every value of `x`, of any shape."""
        low, high = finite_range(x)
        if not x.numel():
            return
        self.low, self.high = (low, high) if self._empty else (min(self.low, low), max(self.high, high))
        self._empty = False
        self._widen()
        flat = x.detach().reshape(-1)
        for start in range(0, flat.numel(), CHUNK):
            bins = (flat[start : start + CHUNK].double() / self.width).floor().long() - self.first
            self.counts += torch.bincount(bins, minlength=self.counts.size).cpu().numpy()

    def folded(self) -> np.ndarray:
        """Counts of |x|, int64 [n]: bin k counts the values in [k w, (k + 1) w)."""
        above, below = self.counts[max(-self.first, 0) :], self.counts[: max(-self.first, 0)][::-1]
        folded = np.zeros(max(above.size, below.size), np.int64)
        folded[: above.size] += above
        folded[: below.size] += below
        return folded

    def _widen(self) -> None:
        """Bins that cover [low, high] and zero, with the present counts in them."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        exponent = SMALLEST
        if high > low:
            exponent = max(exponent, math.frexp((high - low) / (2 * self.bins))[1] - 2)
            while _bin(high, exponent) - _bin(low, exponent) >= 2 * self.bins:
                exponent += 1
        first, last = _bin(low, exponent), _bin(high, exponent)
        places = (self.first + np.arange(self.counts.size)) >> min(exponent - self.exponent, 62)
        counts = np.zeros(last - first + 1, np.int64)
        np.add.at(counts, places - first, self.counts)
        self.exponent, self.first, self.counts = exponent, first, counts


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
