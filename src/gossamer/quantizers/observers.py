"""Observers: from the values that pass to the range [low, high] that a grid should cover.

    minmax           the smallest and largest value
    moving-average   the same of every batch, averaged: low += momentum (batch low - low), from the first batch on
    percentile       the shortest ends between which `percent` of the values lie
    mse              the range, 20 to 100 % of the full one at each end, with the least sum |x - x_hat|^p
    entropy          the clipping whose rounded histogram is nearest in Kullback-Leibler divergence (see `Entropy`)

The last three keep a histogram (`Histogram`), so their memory is bounded. A range holds zero once a Grid is made
of it; that all values are the same, or zero, is no error.
Raises: MeasureError when a value is NaN or infinite, or when nothing was observed; the caller adds the place.
Sources: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, arXiv:1806.08342;
entropy: Migacz, "8-bit inference with TensorRT", GTC 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..errors import MeasureError, OptionError, nearest
from .grid import Grid
from .histogram import Histogram, finite_range

SMOOTH = 1e-4  # counts of an empty bin, so that the divergence stays finite


@dataclass(kw_only=True, eq=False)
class Observer:
    """Base of every observer: `observe` batches, then ask for the `range`."""

    seen: bool = field(default=False, init=False)

    def observe(self, x: Tensor) -> None:
        """Take in a batch of any shape; an empty one counts as seen."""
        self._take(x)
        self.seen = True

    def range(self, *, bits: int = 8, signed: bool = False, symmetric: bool = False) -> tuple[float, float]:
        """(low, high) for a grid of these options; low <= high."""
        if not self.seen:
            raise MeasureError(
                f"{type(self).__name__} observed no value. Run the network on calibration data first, "
                "or leave this tensor out: the network may never compute it."
            )
        return self._range(bits, signed, symmetric)

    def _take(self, x: Tensor) -> None:
        raise NotImplementedError

    def _range(self, bits: int, signed: bool, symmetric: bool) -> tuple[float, float]:
        raise NotImplementedError


@dataclass(kw_only=True, eq=False)
class MinMax(Observer):
    """The smallest and the largest value of all batches."""

    low: float = field(default=0.0, init=False)
    high: float = field(default=0.0, init=False)

    def _take(self, x: Tensor) -> None:
        low, high = finite_range(x)
        if x.numel():
            self._merge(low, high)

    def _merge(self, low: float, high: float) -> None:
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self.seen else (low, high)

    def _range(self, bits: int, signed: bool, symmetric: bool) -> tuple[float, float]:
        return self.low, self.high


@dataclass(kw_only=True, eq=False)
class MovingAverage(MinMax):
    """The smallest and largest value of each batch, averaged with weight `momentum` for a new one."""

    momentum: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise OptionError(f"MovingAverage: momentum is {self.momentum}, expected 0 < momentum <= 1.")

    def _merge(self, low: float, high: float) -> None:
        share = self.momentum if self.seen else 1.0
        self.low += share * (low - self.low)
        self.high += share * (high - self.high)


@dataclass(kw_only=True, eq=False)
class Binned(Observer):
    """Base of the observers that keep a histogram of between `bins` and twice as many bins."""

    bins: int = 2048
    histogram: Histogram = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 16 <= self.bins <= 2**20:
            raise OptionError(f"{type(self).__name__}: bins is {self.bins}, expected 16 to {2**20}.")
        self.histogram = Histogram(self.bins)

    def _take(self, x: Tensor) -> None:
        self.histogram.add(x)

    def _clip(self, low: float, high: float) -> tuple[float, float]:
        """No further than the values themselves."""
        low, high = max(low, self.histogram.low), min(high, self.histogram.high)
        return min(low, high), high


@dataclass(kw_only=True, eq=False)
class Percentile(Binned):
    """Keeps at least `percent` of the values and cuts the rest, half at each end.

    Where no value is below zero (or none above) all of the rest is cut at the other end, as zero stays in the
    range anyway; a symmetric grid keeps `percent` of |x|.
    """

    percent: float = 99.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 50 <= self.percent <= 100:
            raise OptionError(f"Percentile: percent is {self.percent}, expected 50 to 100.")

    def _range(self, bits: int, signed: bool, symmetric: bool) -> tuple[float, float]:
        seen, rest = self.histogram, 1 - self.percent / 100
        if symmetric:
            kept = _bins_kept(seen.folded(), rest) * seen.width
            return self._clip(-kept, kept)
        two_sided = seen.low < 0 < seen.high
        above = 0.0 if seen.high <= 0 else rest / 2 if two_sided else rest
        below = 0.0 if seen.low >= 0 else rest / 2 if two_sided else rest
        last = seen.first + _bins_kept(seen.counts, above)
        first = seen.first + seen.counts.size - _bins_kept(seen.counts[::-1], below)
        return self._clip(first * seen.width, last * seen.width)


def _bins_kept(counts: np.ndarray, rest: float) -> int:
    """The fewest leading bins beyond which at most a fraction `rest` of all counts lies."""
    beyond = counts.sum() - np.cumsum(counts)
    allowed = rest * counts.sum() + 1e-3  # counts are whole, but 1 - percent / 100 is not exact
    return int(np.argmax(beyond <= allowed)) + 1


@dataclass(kw_only=True, eq=False)
class MeanSquare(Binned):
    """The range with the least sum over the histogram of |x - x_hat|^p.

    Each end is 20, 21, ..., 100 % of the full one; a symmetric or one-sided range has one end to choose. With two,
    steps of 5 % are tried first, then those of 1 % around the best.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.p > 0:
            raise OptionError(f"MeanSquare: p is {self.p}, expected p > 0.")

    def _range(self, bits: int, signed: bool, symmetric: bool) -> tuple[float, float]:
        low, high = min(self.histogram.low, 0.0), max(self.histogram.high, 0.0)
        if symmetric:
            low, high = -max(-low, high), max(-low, high)
        used = np.flatnonzero(self.histogram.counts)
        x = torch.from_numpy(self.histogram.centers[used])
        weight = torch.from_numpy(self.histogram.counts[used].astype(np.float64))

        def error(percents: tuple[int, int]) -> float:
            ends = (low * percents[0] / 100, high * percents[1] / 100)
            grid = Grid.of_range(*ends, bits=bits, signed=signed, symmetric=symmetric)
            hat = (grid.codes(x) - grid.zero_point) * grid.scale
            return float(((x - hat).abs() ** self.p) @ weight)

        if symmetric or not low < 0 < high:
            best = min(((k, k) for k in range(100, 19, -1)), key=error)
        else:
            coarse = [(a, b) for a in range(100, 19, -5) for b in range(100, 19, -5)]
            a, b = min(coarse, key=error)
            near = range(4, -5, -1)
            fine = [(a + i, b + j) for i in near for j in near if 20 <= a + i <= 100 and 20 <= b + j <= 100]
            best = min(fine, key=error)
        return low * best[0] / 100, high * best[1] / 100


@dataclass(kw_only=True, eq=False)
class Entropy(Binned):
    """The threshold T on |x| at which rounding to few levels changes the distribution least.

    h: histogram of |x|, n bins of width w; h[0] is lowered to h[1], because the many zeros behind a ReLU are exact on
    every grid and would pull T towards them (as NVIDIA's calibrator does). For every i from L to n:
        P = h[0:i], and all counts beyond go to P[i - 1]
        Q = h[0:i] (without those beyond) summed over L equal groups of bins, each sum spread evenly over the bins
            of its group that P does not leave empty
        divergence = sum P log(P / Q), empty bins of both raised to 1e-4 counts and both scaled to sum 1
    T = (i + 0.5) w for the i of the least divergence. L = levels * 2^(bits - 8): 128 for 8 bits.
    """

    levels: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.levels <= self.bins:
            raise OptionError(f"Entropy: levels is {self.levels}, expected 2 to bins ({self.bins}).")

    def _range(self, bits: int, signed: bool, symmetric: bool) -> tuple[float, float]:
        h = self.histogram.folded()
        levels = max(2, self.levels * 2**bits // 2**8)
        if h.size < levels:
            return self.histogram.low, self.histogram.high
        h[0] = min(h[0], h[1])
        best = levels + int(np.argmin(_divergences(h, levels)))
        threshold = (best + 0.5) * self.histogram.width
        return self._clip(-threshold, threshold)


def _divergences(h: np.ndarray, levels: int) -> np.ndarray:
    """KL(P || Q) of `Entropy` for i = levels, ..., n; Q is the same in all filled bins of a group, so sums suffice."""
    i = np.arange(levels, h.size + 1)
    bounds = np.arange(levels + 1) * i[:, None] // levels
    beyond = h.sum() - np.cumsum(h)[i - 1]
    mass, filled = (np.diff(np.append(0, np.cumsum(a))[bounds]) for a in (h, h > 0))
    filled[:, -1] += (h[i - 1] == 0) & (beyond > 0)
    q = np.maximum(mass / np.maximum(filled, 1), SMOOTH)
    mass[:, -1] += beyond  # from here on the mass of P
    last = h[i - 1] + beyond
    own = np.append(0, np.cumsum(_x_log_x(h)))[i - 1] + _x_log_x(last)
    empty = SMOOTH * (i - filled.sum(axis=1))
    total_p, total_q = h.sum() + empty, (filled * q).sum(axis=1) + empty
    divergences: np.ndarray = (own - (mass * np.log(q)).sum(axis=1)) / total_p + np.log(total_q / total_p)
    return divergences


def _x_log_x(counts: np.ndarray) -> np.ndarray:
    logs: np.ndarray = counts * np.log(np.maximum(counts, 1))
    return logs


NAMES: dict[str, type[Observer]] = {
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "percentile": Percentile,
    "mse": MeanSquare,
    "entropy": Entropy,
}


def find(name: str) -> Observer:
    """A new observer of this name, with its defaults."""
    if name not in NAMES:
        raise OptionError(f"Unknown observer {name!r}. {nearest(str(name), NAMES)}")
    return NAMES[name]()
