"""DoReFa: weights on 2^bits evenly spaced values between -1 and 1, by way of tanh; nothing but the weight is trained.

    w_hat = u (2 Q_k(tanh(w) / (2 max|tanh(w)|) + 1/2) - 1),  Q_k(x) = round(n x) / n,  n = 2^bits - 1
    bits = 1:  w_hat = sign(w) mean|w|, with sign(0) = 1
    latent w: float [*shape], trained      scale u: float [1], fixed

Rounding is straight-through; of one bit the gradient passes unchanged (equation 7). The values are the odd multiples
-n, -n + 2, ..., n of u / n: zero is none of them, so nothing is pruned by it; those of 8 bits, up to 255, do not fit
int8, and such a layer runs in floats.
The paper has u = 1 and trains from the start with it, before a batch norm; rescale=True fixes u to the first
max|tanh(w)|, with which w_hat is close to w, as a network already trained needs it.
Stored: odd integers times u / n, on layout `uniform`. Activations: quantizers.DoReFaActivation.
Source: Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equations 5 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..errors import OptionError
from ..formats.base import Parts, WeightFormat, check_finite
from ..formats.uniform import on_grid
from ..quantizers.grid import TINY


@dataclass(frozen=True, kw_only=True)
class DoReFa(WeightFormat):
    """DoReFa-Net's weights; rescale: keep the scale of the weights that are encoded."""

    layout: ClassVar[str] = "uniform"
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "scale")
    fixed_parts: ClassVar[tuple[str, ...]] = ("scale",)
    int8_bits: ClassVar[int] = 7

    bits: int = 4
    rescale: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 1 <= self.bits <= 8):
            raise OptionError(f"DoReFa: bits must be 1 to 8; received {self.bits!r}.")

    @property
    def largest(self) -> int:
        """n, the largest code."""
        largest: int = 2**self.bits - 1
        return largest

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, "DoReFa")
        dense = dense.detach().float().clone()
        scale = dense.new_ones(1)
        if self.rescale and self.bits > 1 and dense.numel():
            scale = dense.tanh().abs().amax().clamp_min(TINY).reshape(1)
        return dense, scale

    def decode(self, *parts: Tensor) -> Tensor:
        latent = parts[0]
        if self.bits == 1:
            value = self._codes(latent) * self._step(*parts)
            return value.detach() + (latent - latent.detach())
        return self._codes(latent) * self._step(*parts)

    def store(self, *parts: Tensor) -> Stored:
        return on_grid(self._codes(parts[0]).int(), self._step(*parts))

    def _codes(self, latent: Tensor) -> Tensor:
        """Odd integers as floats, with the gradient of what they round."""
        if self.bits == 1:
            return torch.where(latent < 0, -1.0, 1.0)
        squashed = latent.tanh()
        most = squashed.abs().amax().clamp_min(TINY) if latent.numel() else 1.0
        x = self.largest * (squashed / (2 * most) + 0.5)
        return 2 * (x + (x.round() - x).detach()) - self.largest

    def _step(self, *parts: Tensor) -> Tensor:
        latent, scale = parts
        if self.bits == 1 and latent.numel():
            return latent.detach().abs().double().mean().float().reshape(1)
        return scale / self.largest
