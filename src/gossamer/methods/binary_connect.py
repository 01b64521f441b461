"""BinaryConnect: binary weights in both passes, real ones collect the updates.

    deterministic   w_b = H sign(w)
    stochastic      w_b = +H with p = clip((w / H + 1) / 2, 0, 1), else -H; drawn anew in every forward of training
    w <- clip(w - lr dL/dw_b, -H, H),  H = sqrt(1.5 / (fan_in + fan_out))

The gradient is that of w_b (no mask but the clip: training.ClipLatent). In evaluation and in the file the weight is
H sign(w); real=True evaluates and stores w itself, as the authors test stochastic training (32 bits, for comparison).
Source: Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015, arXiv:1511.00363, sections 2.2 to 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..formats import Dense
from ..formats.binary import Binary, glorot
from ..formats.straight_through import passing


@dataclass(frozen=True, kw_only=True)
class BinaryConnect(Binary):
    """Binary weights of one scale H; stochastic: signs are drawn while training; real: test with the real weights."""

    scale: str = "glorot"
    slope: str = "identity"
    stochastic: bool = False
    real: bool = False

    def decode(self, *parts: Tensor) -> Tensor:
        return parts[0] + 0.0 if self.real else super().decode(*parts)

    def decode_training(self, *parts: Tensor) -> Tensor:
        (latent,) = parts
        if not self.stochastic:
            return super().decode(latent)
        limit = glorot(latent.shape)
        up = torch.rand_like(latent) < (latent.detach() / limit + 1) / 2
        return passing(latent, torch.where(up, limit, -limit).to(latent.dtype))

    def store(self, *parts: Tensor) -> Stored:
        return Dense().store(*parts) if self.real else super().store(*parts)
