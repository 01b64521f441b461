"""Ternary: every weight is minus a scale, zero, or plus the scale; two bits each, fewer when coded.

    t = sign(latent) where |latent| > D, else 0        w_hat = a t
    latent: float [*shape], trained straight through (the gradient of w_hat goes to latent unchanged)

    threshold "ratio"   D = `ratio` mean |latent|,  a = mean of |latent| where |latent| > D
              "exact"   the D of least squared error: of all prefixes of the sorted |latent| the one that maximises
                        (sum of |latent|)^2 / count

D and a belong to the tensor or to each output channel (`granularity`); both are found anew from the latent weights in each
forward and carry no gradient of their own. Zeros stay exactly zero where the latent weight is zero.
Stored: codes of 2 bits, plus a float32 per scale (layout uniform).
Error:  for Gaussian weights D / mean|w| of 0.75 is the best, for uniform ones 2/3; 0.7 lies between.
Source: Li, Zhang, Liu, "Ternary weight networks", 2016, arXiv:1605.04711, eq. 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..errors import OptionError
from .base import Parts, WeightFormat, check_finite
from .straight_through import passing
from .uniform import Uniform, on_grid


@dataclass(frozen=True, kw_only=True)
class Ternary(WeightFormat):
    """{-a, 0, +a} per tensor or per output channel; threshold: "ratio" or "exact"."""

    layout: ClassVar[str] = Uniform.layout
    own_parts: ClassVar[tuple[str, ...]] = ("latent",)

    granularity: str = "tensor"  # or "channel"
    threshold: str = "ratio"  # or "exact"
    ratio: float = 0.7

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.granularity not in ("tensor", "channel"):
            raise OptionError(f"{name}: granularity is tensor or channel; received {self.granularity!r}.")
        if self.threshold not in ("ratio", "exact"):
            raise OptionError(f"{name}: threshold is ratio or exact; received {self.threshold!r}.")
        if not self.ratio >= 0:
            raise OptionError(
                f"{name}: ratio is a multiple of mean |w|, at least 0; received {self.ratio!r}."
            )

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        return (dense.detach().float().clone(),)

    def decode(self, *parts: Tensor) -> Tensor:
        (latent,) = parts
        codes, scale = self.codes(latent)
        return passing(latent, codes * scale.reshape(-1, *([1] * (latent.dim() - 1))))

    @torch.no_grad()
    def codes(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """{-1, 0, 1} as float [*shape], and the scales, float [1] or [O]."""
        rows = (
            latent.reshape(len(latent), -1)
            if self.granularity == "channel" and latent.dim() > 1
            else latent.reshape(1, -1)
        )
        size = rows.abs()
        if self.threshold == "exact":
            kept = _best(size)
        else:
            kept = size > self.ratio * size.mean(dim=1, keepdim=True)
        scale = (size * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1)
        return (rows.sign() * kept).reshape(latent.shape), scale

    def store(self, *parts: Tensor) -> Stored:
        (latent,) = parts
        codes, scale = self.codes(latent.detach().cpu())
        return on_grid(codes.int(), scale)


def _best(size: Tensor) -> Tensor:
    """Which of |w| [rows, n] stay for the least squared error: bool [rows, n]."""
    ordered, places = size.double().sort(dim=1, descending=True, stable=True)
    counts = torch.arange(1, size.shape[1] + 1, dtype=torch.float64, device=size.device)
    gain = ordered.cumsum(dim=1).square() / counts
    stays = counts <= counts[gain.argmax(dim=1)][:, None] if size.shape[1] else gain > 0
    return torch.zeros_like(size, dtype=torch.bool).scatter(1, places, stays) & (size > 0)
