"""Uniform: weights on an evenly spaced grid through zero.

    code[o, i] = clip(round(w[o, i] / scale), -Q, Q)        w_hat[o, i] = code[o, i] * scale
    latent: float [*shape], trained through the rounding (straight-through estimator)
    scale:  float [1], [O] per output channel, or [O ceil(I / group)] per group of consecutive inputs (the last
            may be short; I: all axes but the first together); fixed after `encode` (LSQ trains it)

Q = 2^(bits-1) - 1 (narrow range, so the grid is symmetric and zero stays exactly zero); with bits=None the range is
open and the entropy coder decides what a code costs.
Stored: codes at `bits` bits before entropy coding, plus the scales as `scale_dtype`, to which they are rounded before any
code is chosen: 16 bits are enough, and with groups of 32 they save half a bit per weight. The step of the grid is given
(`step`), or the smallest that reaches the largest weight (`fit="max"`), or the one with the least squared error
(`fit="mse"`). A tensor of one axis has one scale.
Error:  at most half a step inside the range. Rounding is half to even.
Source: symmetric uniform quantization; straight-through estimator: Bengio et al., 2013, arXiv:1308.3432.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact.stored import Floats, Ints, Stored
from ..errors import FormatError, OptionError, nearest
from .base import Parts, WeightFormat, check_finite
from .dense import DTYPES

MAX_CODE = 2**15 - 1
TOGETHER = 2**15  # weights whose scales are searched at once: they fit the cache, and torch uses one thread
GRANULARITIES = ("tensor", "channel", "group")


@dataclass(frozen=True, kw_only=True)
class Uniform(WeightFormat):
    """Signed codes of `bits` bits times a scale per tensor, output channel, or `group` of its inputs."""

    layout: ClassVar[str] = "uniform"
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "scale")
    fixed_parts: ClassVar[tuple[str, ...]] = ("scale",)
    fits: ClassVar[tuple[str, ...]] = ("max", "mse")

    bits: int | None = 8
    granularity: str = "tensor"  # or "channel", "group"
    group: int = 32  # inputs that share a scale, with granularity="group"
    step: float | None = None
    fit: str = "max"  # or "mse"
    scale_dtype: str = "float32"  # or "float16", "bfloat16"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.bits is not None and not (isinstance(self.bits, int) and 2 <= self.bits <= 16):
            raise OptionError(
                f"{name}: bits must be 2 to 16, or None for an open range; received {self.bits!r}."
            )
        if self.granularity not in GRANULARITIES:
            raise OptionError(
                f"{name}: granularity is one of {', '.join(GRANULARITIES)}; received {self.granularity!r}."
            )
        if not (isinstance(self.group, int) and self.group >= 1):
            raise OptionError(f"{name}: group is a number of inputs, 1 or more; received {self.group!r}.")
        if self.fit not in self.fits:
            raise OptionError(f"{name}: fit is one of {', '.join(self.fits)}; received {self.fit!r}.")
        if self.scale_dtype not in DTYPES:
            raise OptionError(
                f"{name}: unknown scale_dtype, received {self.scale_dtype!r}. {nearest(str(self.scale_dtype), DTYPES)}"
            )
        if self.step is not None and not self.step > 0:
            raise OptionError(f"{name}: step must be positive; received {self.step!r}.")
        if self.step is None and self.bits is None:
            raise OptionError(f"{name}: an open range (bits=None) needs a step.")

    @property
    def largest(self) -> int:
        """Q, the largest code."""
        return MAX_CODE if self.bits is None else 2 ** (self.bits - 1) - 1

    @property
    def smallest(self) -> int:
        """The smallest code, -Q."""
        return -self.largest

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        dense = dense.detach().float().clone()
        if self.step is not None:
            scale = dense.new_full((self._rows(dense).shape[0],), self.step)
        else:
            scale = self._fit(dense)
        scale = self._rounded(scale)
        if not bool(((scale > 0) & scale.isfinite()).all()):
            raise FormatError(
                f"{type(self).__name__}: {self.scale_dtype} cannot hold the scales of these weights, which are up to "
                f"{float(dense.abs().max()):.3g}. Use bfloat16 or float32."
            )
        reach = (dense.abs() / self._spread(scale, dense)).max() if dense.numel() else dense.new_zeros(())
        if self.bits is None and float(reach) > MAX_CODE:
            raise FormatError(
                f"Uniform: step {self.step} needs codes up to {float(reach):.0f}, but {MAX_CODE} is the largest. "
                f"Use a step above {float(dense.abs().max()) / MAX_CODE:.3g}."
            )
        return dense, scale

    def decode(self, *parts: Tensor) -> Tensor:
        latent, spread = parts[0], self._spread(self.kept_scale(*parts), parts[0])
        ratio = (latent / spread).clamp(self.smallest, self.largest)
        return (ratio + (ratio.round() - ratio).detach()) * spread

    def scale(self, *parts: Tensor) -> Tensor:
        """The scale, one per row of `granularity`, before it is rounded to `scale_dtype`."""
        return parts[1]

    def kept_scale(self, *parts: Tensor) -> Tensor:
        """The scale that codes are multiplied with; a gradient passes its rounding."""
        scale = self.scale(*parts)
        if self.scale_dtype == "float32":
            return scale
        return scale + (self._rounded(scale) - scale).detach()

    def codes(self, *parts: Tensor) -> Tensor:
        """Signed integer codes, int32 [*shape]."""
        latent, spread = parts[0], self._spread(self.kept_scale(*parts), parts[0])
        return (latent / spread).clamp(self.smallest, self.largest).round().int()

    def store(self, *parts: Tensor) -> Stored:
        codes, scale = self.codes(*parts), self.kept_scale(*parts)
        grouped = self.granularity == "group" and codes.dim() > 1 and self.group < _matrix(codes)[1]
        return on_grid(codes, scale, group=self.group if grouped else None, dtype=self.scale_dtype)

    def _fit(self, dense: Tensor) -> Tensor:
        """The scale of each row that `fit` asks for; float [rows]."""
        rows = self._rows(dense)
        if rows.numel() == 0:
            return rows.new_ones(rows.shape[0])
        reach = rows.abs().amax(dim=1) / self.largest
        smallest = torch.finfo(torch.float32).tiny * 2**16
        empty = max(smallest, torch.finfo(DTYPES[self.scale_dtype]).tiny)
        # an all-zero channel would divide 0 by 0
        full = torch.where(reach > 0, reach.clamp_min(smallest), empty)
        if self.fit == "max":
            return full
        size = max(1, TOGETHER // max(rows.shape[1], 1))
        starts = range(0, len(rows), size)
        return torch.cat([self._least_squares(rows[i : i + size], full[i : i + size]) for i in starts])

    def _least_squares(self, rows: Tensor, full: Tensor) -> Tensor:
        """Of 81 scales from 0.2 to 1 of `full` [rows], the one with the least squared error."""
        best, best_error = full.clone(), torch.full_like(full, float("inf"))
        for fraction in torch.linspace(0.2, 1.0, 81).tolist():
            scale = (full * fraction)[:, None]
            ratio = (rows / scale).clamp_(self.smallest, self.largest).round_()
            error = ratio.mul_(scale).sub_(rows).square_().sum(dim=1)
            better = error < best_error
            best, best_error = torch.where(better, scale[:, 0], best), torch.where(better, error, best_error)
        return best

    def _rounded(self, scale: Tensor) -> Tensor:
        """The scale as `scale_dtype` holds it."""
        return scale.to(DTYPES[self.scale_dtype]).float()

    def _rows(self, dense: Tensor) -> Tensor:
        """The weights that share a scale, one row each; short groups are filled up with zeros."""
        if self.granularity == "tensor" or dense.dim() < 2:
            return dense.reshape(1, -1)
        rows, columns = _matrix(dense)
        if self.granularity == "channel" or not columns:
            return dense.reshape(rows, columns)
        return F.pad(dense.reshape(rows, columns), (0, -columns % self.group)).reshape(-1, self.group)

    def _spread(self, scale: Tensor, like: Tensor) -> Tensor:
        """The scale of every weight, in a shape that broadcasts to that of `like`."""
        if scale.numel() == 1:
            return scale
        if self.granularity == "channel":
            return scale.reshape(-1, *([1] * (like.dim() - 1)))
        rows, columns = _matrix(like)
        wide = scale.reshape(rows, -1).repeat_interleave(self.group, dim=1)
        return wide[:, :columns].reshape(like.shape)


def on_grid(codes: Tensor, scale: Tensor, *, group: int | None = None, dtype: str = "float32") -> Stored:
    """The fields of layout `uniform` for signed integer codes [*shape] times float scales."""
    values = codes.detach().cpu().reshape(-1).numpy()
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    low, high = min(low, 0), max(high, 0)
    width = max(1, (high - low).bit_length())
    shifted = (values - low).astype("uint16" if width > 8 else "uint8")
    return Stored(
        Uniform.layout,
        tuple(codes.shape),
        {
            "codes": Ints(shifted, width),
            "scale": Floats(scale.detach().float().cpu().numpy().reshape(-1), dtype),
        },
        options={"offset": -low} | ({} if group is None else {"group": group}),
    )


def _matrix(tensor: Tensor) -> tuple[int, int]:
    """Rows (the first axis) and columns (all others together)."""
    return tensor.shape[0], math.prod(tensor.shape[1:])
