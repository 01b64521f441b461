"""Affine: y = x * scale + shift per channel; what a batch norm is at inference.

scale, shift: float [C], channel axis 1 of an input [N, C, ...]; trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..cost import Cost, Costed


def channel_affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """y = x * scale + shift per channel; one call for who follows the calls of torch functions, as batch_norm is."""
    if has_torch_function((x, scale, shift)):
        followed: Tensor = handle_torch_function(channel_affine, (x, scale, shift), x, scale, shift)
        return followed
    spread = (-1, *([1] * (x.dim() - 2)))
    return x * scale.reshape(spread) + shift.reshape(spread)


class Affine(nn.Module, Costed):
    """A per-channel scale and shift; 2C numbers instead of the 4C of a batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return channel_affine(x, self.scale, self.shift)

    def cost(self, *input_shapes: tuple[int, ...]) -> Cost:
        """One multiply and one add per element."""
        return Cost.of_elements(math.prod(input_shapes[0]), multiply=1, add=1)

    @classmethod
    def from_norm(cls, norm: nn.modules.batchnorm._BatchNorm) -> Affine:
        """The same function as `norm` in eval mode, computed in float64."""
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None
        assert var is not None
        affine = cls(norm.num_features)
        gamma = norm.weight.detach().double() if norm.affine else torch.ones_like(mean).double()
        beta = norm.bias.detach().double() if norm.affine else torch.zeros_like(mean).double()
        scale = gamma / (var.double() + norm.eps).sqrt()
        affine.scale.data = scale.float()
        affine.shift.data = (beta - mean.double() * scale).float()
        return affine
