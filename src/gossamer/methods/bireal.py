"""Bi-Real Net's weights: signs with the mean magnitude of each filter, which the gradient sees too.

    w_hat = a sign(w),  a[o] = mean |w[o]|,  dL/dw = dL/dw_hat a where |w| <= 1 (a as a constant: magnitude-aware gradient)

Its activations are blocks.Sign(slope="approx"), and every binary convolution has a shortcut of real values around it.
Source: Liu et al., "Bi-Real Net", ECCV 2018, arXiv:1808.00278, sections 3.2 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..formats.binary import Binary


@dataclass(frozen=True, kw_only=True)
class BiReal(Binary):
    """Signs with a scale per filter that is a constant to the gradient."""

    def scales(self, latent: Tensor) -> Tensor:
        return super().scales(latent.detach())
