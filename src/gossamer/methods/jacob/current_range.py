"""CurrentRange: while a network trains, the grid of a weight reaches its largest value at every use.

    scale = max |w| / Q, Q = 2^(bits-1) - 1         of the weight as it is now, not as it was when training began
    w_hat = round(w / scale) scale                  the gradient passes unchanged: no weight lies outside of the grid

The form that layers without a batch norm have in training with simulated quantization; `finish` makes a plain Uniform of
it, with the same weights bit for bit. Folded layers round the same way (`straight_through`).
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1 (weight ranges are the present minimum and maximum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...formats import Uniform, WeightFormat


@dataclass(frozen=True, kw_only=True)
class CurrentRange(Uniform):
    """Options are those of Uniform; its scale is computed anew from the latent weight."""

    def scale(self, *parts: Tensor) -> Tensor:
        return self.encode(parts[0])[1]

    def decode(self, *parts: Tensor) -> Tensor:
        return straight_through(parts[0], self.settled())

    def settled(self) -> Uniform:
        """The format that the weight keeps after training."""
        return Uniform(**vars(self))


def straight_through(weight: Tensor, format: WeightFormat) -> Tensor:
    """Exactly what `format` decodes `weight` to, with the gradient of the weight itself."""
    with torch.no_grad():
        rounded = format.decode(*format.encode(weight))
    return rounded + (weight - weight.detach())
