"""Binary: every weight is plus or minus a scale; one bit each.

    w_hat[o, i] = a[o] sign(latent[o, i]),  sign(0) = +1
    latent: float [*shape], trained through the sign (straight_through, by `slope`)

    scale "none"     a = 1                                              BNN
          "glorot"   a = H = sqrt(1.5 / (fan_in + fan_out)), one        BinaryConnect
          "tensor"   a = mean |latent|, one
          "channel"  a[o] = mean_i |latent[o, i]|: the least squares fit XNOR-Net

A mean follows the latent weights in training and carries gradient. `limits` is where the latent weights are clipped
after each step (training.ClipLatent): beyond it a weight would hardly ever flip.
Stored: 1 bit per weight and a float32 per scale.
Error:  scale "channel": |w - w_hat|^2 = |w|^2 - |w|_1^2 / n per channel, the least of any a and any signs.
Source: Rastegari et al., "XNOR-Net", ECCV 2016, arXiv:1603.05279, section 3.1; Courbariaux et al., NIPS 2015,
arXiv:1511.00363.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..artifact.stored import Floats, Ints, Stored
from ..errors import OptionError, nearest
from .base import Learning, Parts, WeightFormat, check_finite
from .straight_through import SLOPES, sign

SCALES = ("none", "glorot", "tensor", "channel")


@dataclass(frozen=True, kw_only=True)
class Binary(WeightFormat):
    """Signs times a scale: "none", "glorot", "tensor" or "channel"; slope: the gradient of sign."""

    layout: ClassVar[str] = "binary"
    own_parts: ClassVar[tuple[str, ...]] = ("latent",)

    scale: str = "channel"
    slope: str = "clipped"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.scale not in SCALES:
            raise OptionError(f"{name}: unknown scale {self.scale!r}. {nearest(str(self.scale), SCALES)}")
        if self.slope not in SLOPES:
            raise OptionError(f"{name}: unknown slope {self.slope!r}. {nearest(str(self.slope), SLOPES)}")

    def learning(self) -> dict[str, Learning]:
        return {
            "latent": Learning(decay=False)
        }  # decay pulls latent weights to 0, where signs flip at random

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        return (dense.detach().float().clone(),)

    def decode(self, *parts: Tensor) -> Tensor:
        (latent,) = parts
        scale = self.scales(latent)
        return sign(latent, self.slope) * scale.reshape(-1, *([1] * (latent.dim() - 1)))

    def scales(self, latent: Tensor) -> Tensor:
        """float [1], or [O] with scale "channel"."""
        if self.scale == "channel" and latent.dim() > 1:
            return latent.abs().flatten(1).mean(dim=1)
        if self.scale in ("tensor", "channel"):
            return latent.abs().mean().reshape(1)
        return latent.new_tensor([1.0 if self.scale == "none" else glorot(latent.shape)])

    def limits(self, *parts: Tensor) -> dict[str, float]:
        return {"latent": glorot(parts[0].shape) if self.scale == "glorot" else 1.0}

    def store(self, *parts: Tensor) -> Stored:
        (latent,) = (part.detach().cpu() for part in parts)
        return planes((latent < 0)[None], self.scales(latent).float()[None])


def planes(negative: Tensor, scale: Tensor) -> Stored:
    """The fields of layout `binary`: signs bool [M, *shape], True = -1; scale float [M, 1 or O]."""
    bases = len(negative)
    return Stored(
        Binary.layout,
        tuple(negative.shape[1:]),
        {
            "signs": Ints(negative.reshape(-1).numpy().astype(np.uint8), 1),
            "scale": Floats(scale.numpy().astype(np.float32).reshape(-1)),
        },
        options={} if bases == 1 else {"bases": bases},
    )


def glorot(shape: torch.Size) -> float:
    """sqrt(1.5 / (fan_in + fan_out)) of a weight [O, I, *kernel]: half of Glorot's range."""
    inner = math.prod(shape[1:]) if len(shape) > 1 else 1
    outer = shape[0] * (math.prod(shape[2:]) if len(shape) > 2 else 1) if shape else 1
    return math.sqrt(1.5 / max(inner + outer, 1))
