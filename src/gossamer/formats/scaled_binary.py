"""ScaledBinary: signs times a scale for each output channel that is a part of its own; Binary after a norm was folded in.

    w_hat[o, i] = scale[o] sign(latent[o, i]),  sign(0) = +1
    latent: float [*shape], trained through the sign, by `slope`      scale: float [O], trained

Stored: 1 bit per weight and a float32 per channel (layout binary).
Error:  that of `Binary` with scale "channel" when it encodes; none where signs are only rescaled.
Source: Rastegari et al., "XNOR-Net", ECCV 2016, arXiv:1603.05279, section 3.1, with the scale as a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..artifact.stored import Stored
from ..errors import OptionError, nearest
from .base import Learning, Parts, WeightFormat, check_finite
from .binary import Binary, planes
from .straight_through import SLOPES, sign


@dataclass(frozen=True, kw_only=True)
class ScaledBinary(WeightFormat):
    """Signs times a trained scale per channel; slope: the gradient of sign."""

    layout: ClassVar[str] = Binary.layout
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "scale")

    slope: str = "clipped"

    def __post_init__(self) -> None:
        if self.slope not in SLOPES:
            raise OptionError(
                f"ScaledBinary: unknown slope {self.slope!r}. {nearest(str(self.slope), SLOPES)}"
            )

    def learning(self) -> dict[str, Learning]:
        return {"latent": Learning(decay=False), "scale": Learning(decay=False)}

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        latent = dense.detach().float().clone()
        return latent, Binary(scale="channel").scales(latent)

    def decode(self, *parts: Tensor) -> Tensor:
        latent, scale = parts
        return sign(latent, self.slope) * scale.reshape(-1, *([1] * (latent.dim() - 1)))

    def limits(self, *parts: Tensor) -> dict[str, float]:
        return {"latent": 1.0}

    def store(self, *parts: Tensor) -> Stored:
        latent, scale = (part.detach().cpu() for part in parts)
        return planes((latent < 0)[None], scale.float()[None])
