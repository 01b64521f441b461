"""MaskedUniform: a uniform grid over a pruned weight, with a scale per tensor, output channel or group of inputs.

    w_hat[o, i] = mask[o, i] * code[o, i] * scale[row(o, i)]        codes and scales as in Uniform
    latent: float [*shape], trained where the mask is set      scale: as in Uniform, fixed      mask: bool [*shape], fixed

`Sparse(values=Uniform)` keeps the survivors as a list, which no longer knows its rows, so it has one scale. This format
keeps the shape and therefore the rows; pruned places are the code 0 of the grid, and training never moves them.

Stored: as Uniform; the zeros cost what the entropy coder makes of them, positions are not stored apart.
Error:  at most half a step at the places that are kept, none elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Parts
from .uniform import Uniform


@dataclass(frozen=True, kw_only=True)
class MaskedUniform(Uniform):
    """Uniform over the entries that are not zero when it encodes; the others stay exactly zero."""

    own_parts: ClassVar[tuple[str, ...]] = ("latent", "scale", "mask")

    def encode(self, dense: Tensor) -> Parts:
        return (*super().encode(dense), dense.detach() != 0)

    def decode(self, *parts: Tensor) -> Tensor:
        decoded = super().decode(*parts)
        return torch.where(parts[2], decoded, torch.zeros_like(decoded))

    def codes(self, *parts: Tensor) -> Tensor:
        return super().codes(*parts) * parts[2]
