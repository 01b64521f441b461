"""XNOR-Net's weights: signs of centred weights times their mean magnitude per filter. BWN with float activations.

    w = clamp(latent - mean over input channels, -1, 1)       B = sign(w),  a[o] = |w[o]|_1 / n
    w_hat = a B       dL/dlatent: the exact derivative, with sign clipped to |w| <= 1

Per iteration the authors centre and clamp the latent weights themselves; here both are part of the decoding, so any
optimizer does it, and what is stored is sign(w) once. The factor (1 - 1/C) n that their code multiplies gradients with is
left out: Adam does not see it, and SGD should not.
The scale map K of the activations is left out too, as in the authors' training code.
Source: Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net", ECCV 2016, arXiv:1603.05279, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..artifact.stored import Stored
from ..formats.binary import Binary


@dataclass(frozen=True, kw_only=True)
class XNOR(Binary):
    """Signs with a scale per filter; centre: subtract the mean over input channels first."""

    centre: bool = True

    def decode(self, *parts: Tensor) -> Tensor:
        return super().decode(self._centred(parts[0]))

    def store(self, *parts: Tensor) -> Stored:
        return super().store(self._centred(parts[0].detach()))

    def _centred(self, latent: Tensor) -> Tensor:
        if self.centre and latent.dim() > 1:
            latent = latent - latent.mean(dim=1, keepdim=True)
        return latent.clamp(-1, 1)
