"""Uniform: weights on an evenly spaced grid through zero.

    code[o, i] = clip(round(w[o, i] / scale), -Q, Q)        w_hat[o, i] = code[o, i] * scale
    latent: float [*shape], trained through the rounding (straight-through estimator)
    scale:  float [1], or [O] per output channel; fixed after `encode` (LSQ trains it)

Q = 2^(bits-1) - 1 (narrow range, so the grid is symmetric and zero stays exactly zero); with bits=None the range is
open and the entropy coder decides what a code costs.
Stored: codes at `bits` bits before entropy coding, plus one or O scales of 32 bits. The step of the grid is given
(`step`), or the smallest that reaches the largest weight (`fit="max"`), or the one with the least squared error (`fit="mse"`).
Error:  at most half a step inside the range. Rounding is half to even.
Source: symmetric uniform quantization; straight-through estimator: Bengio et al., 2013, arXiv:1308.3432.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Floats, Ints, Stored
from ..errors import FormatError, OptionError
from .base import Parts, WeightFormat, check_finite

MAX_CODE = 2**15 - 1


@dataclass(frozen=True, kw_only=True)
class Uniform(WeightFormat):
    """Signed codes of `bits` bits times a scale per tensor or per output channel."""

    layout: ClassVar[str] = "uniform"
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "scale")
    fixed_parts: ClassVar[tuple[str, ...]] = ("scale",)

    bits: int | None = 8
    granularity: str = "tensor"  # or "channel"
    step: float | None = None
    fit: str = "max"  # or "mse"

    def __post_init__(self) -> None:
        if self.bits is not None and not (isinstance(self.bits, int) and 2 <= self.bits <= 16):
            raise OptionError(
                f"Uniform: bits must be 2 to 16, or None for an open range; received {self.bits!r}."
            )
        if self.granularity not in ("tensor", "channel"):
            raise OptionError(
                f"Uniform: granularity is 'tensor' or 'channel'; received {self.granularity!r}."
            )
        if self.fit not in ("max", "mse"):
            raise OptionError(f"Uniform: fit is 'max' or 'mse'; received {self.fit!r}.")
        if self.step is not None and not self.step > 0:
            raise OptionError(f"Uniform: step must be positive; received {self.step!r}.")
        if self.step is None and self.bits is None:
            raise OptionError("Uniform: an open range (bits=None) needs a step.")

    @property
    def largest(self) -> int:
        """Q, the largest code."""
        return MAX_CODE if self.bits is None else 2 ** (self.bits - 1) - 1

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, "Uniform")
        dense = dense.detach().float().clone()
        if self.step is not None:
            rows = dense.shape[0] if self.granularity == "channel" and dense.dim() > 1 else 1
            scale = dense.new_full((rows,), self.step)
        else:
            scale = self._fit(dense)
        reach = (dense.abs() / self._spread(scale, dense)).max() if dense.numel() else dense.new_zeros(())
        if self.bits is None and float(reach) > MAX_CODE:
            raise FormatError(
                f"Uniform: step {self.step} needs codes up to {float(reach):.0f}, but {MAX_CODE} is the largest. "
                f"Use a step above {float(dense.abs().max()) / MAX_CODE:.3g}."
            )
        return dense, scale

    def decode(self, *parts: Tensor) -> Tensor:
        latent, scale = parts
        spread = self._spread(scale, latent)
        ratio = (latent / spread).clamp(-self.largest, self.largest)
        return (ratio + (ratio.round() - ratio).detach()) * spread

    def codes(self, *parts: Tensor) -> Tensor:
        """Signed integer codes, int32 [*shape]."""
        latent, scale = parts
        return (latent / self._spread(scale, latent)).clamp(-self.largest, self.largest).round().int()

    def store(self, *parts: Tensor) -> Stored:
        codes = self.codes(*parts).detach().cpu().reshape(-1).numpy()
        low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
        low, high = min(low, 0), max(high, 0)
        width = max(1, (high - low).bit_length())
        shifted = (codes - low).astype("uint16" if width > 8 else "uint8")
        scale = parts[1].detach().float().cpu().numpy().reshape(-1)
        return Stored(
            self.layout,
            tuple(parts[0].shape),
            {"codes": Ints(shifted, width), "scale": Floats(scale)},
            options={"offset": -low},
        )

    def _fit(self, dense: Tensor) -> Tensor:
        """The scale of each channel (or of the tensor) that `fit` asks for; float [rows]."""
        per_channel = self.granularity == "channel" and dense.dim() > 1
        rows = dense.reshape(dense.shape[0], -1) if per_channel else dense.reshape(1, -1)
        if rows.numel() == 0:
            return rows.new_ones(rows.shape[0])
        tiny = torch.finfo(torch.float32).tiny * 2**16
        full = (rows.abs().amax(dim=1) / self.largest).clamp_min(
            tiny
        )  # an all-zero channel would divide 0 by 0
        if self.fit == "max":
            return full
        best, best_error = full.clone(), torch.full_like(full, float("inf"))
        for fraction in torch.linspace(0.2, 1.0, 81).tolist():
            scale = full * fraction
            ratio = (rows / scale[:, None]).clamp(-self.largest, self.largest)
            error = (ratio.round() * scale[:, None] - rows).square().sum(dim=1)
            better = error < best_error
            best, best_error = torch.where(better, scale, best), torch.where(better, error, best_error)
        return best

    @staticmethod
    def _spread(scale: Tensor, like: Tensor) -> Tensor:
        return scale if scale.numel() == 1 else scale.reshape(-1, *([1] * (like.dim() - 1)))
