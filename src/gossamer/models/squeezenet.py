"""SqueezeNet 1.1 in the form of Caffe, for photographs of 227 x 227.

    conv1 64@3x3/2 - pool - fire2 fire3 - pool - fire4 fire5 - pool - fire6 ... fire9 - conv10 1000@1x1 - ReLU - mean

A fire module squeezes with a 1x1 convolution and expands with a 1x1 and a 3x3 one side by side, ReLU after each.
Pools are 3x3 of stride 2 with the size rounded up, and conv1 has no padding. Inputs are [N, 3, 227, 227], blue green
red, 0..255 minus the mean colour (104, 117, 123); outputs are logits [N, 1000] (never negative: the ReLU comes before
the mean). 1,235,496 parameters. Names are those of the Caffe model, "fire2/squeeze1x1" and so on.
Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv:1602.07360; version 1.1
of the authors' repository.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRES = (
    (2, 16, 64),
    (3, 16, 64),
    (4, 32, 128),
    (5, 32, 128),
    (6, 48, 192),
    (7, 48, 192),
    (8, 64, 256),
    (9, 64, 256),
)
POOLED = (3, 5)  # the fire modules that a pool follows


class SqueezeNet(nn.Module):
    """Eight fire modules between two convolutions."""

    input_shape = (1, 3, 227, 227)

    def __init__(self, *, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 2)
        inner = 64
        for number, squeezed, expanded in FIRES:
            self.add_module(f"fire{number}/squeeze1x1", nn.Conv2d(inner, squeezed, 1))
            self.add_module(f"fire{number}/expand1x1", nn.Conv2d(squeezed, expanded, 1))
            self.add_module(f"fire{number}/expand3x3", nn.Conv2d(squeezed, expanded, 3, padding=1))
            inner = 2 * expanded
        self.conv10 = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _pool(F.relu(self.conv1(x)))
        for number, _, _ in FIRES:
            x = self._fire(number, x)
            x = _pool(x) if number in POOLED else x
        return F.relu(self.conv10(x)).mean((2, 3))

    def _fire(self, number: int, x: Tensor) -> Tensor:
        squeeze, expand1, expand3 = (
            self.get_submodule(f"fire{number}/{part}") for part in ("squeeze1x1", "expand1x1", "expand3x3")
        )
        x = F.relu(squeeze(x))
        return torch.cat([F.relu(expand1(x)), F.relu(expand3(x))], 1)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
