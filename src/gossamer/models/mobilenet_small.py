"""MobileNet-small: inverted residuals with depthwise convolutions, for 32 x 32 pictures.

    stem 16 - blocks of 16, 24, 24, 32, 32, 64, 64, 96 channels, the third, fifth and seventh halve the picture -
    1x1 to 256 - mean - linear

A block widens by 4 with a 1x1 convolution, filters each channel with a 3x3 depthwise one and narrows again, each
with BN; ReLU6 after the first two, and a shortcut where shapes allow. Inputs are [N, 3, 32, 32], outputs logits.
Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2", CVPR 2018, with strides and widths for small pictures.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = ((16, 1), (24, 1), (24, 2), (32, 1), (32, 2), (64, 1), (64, 2), (96, 1))  # channels, stride
EXPANSION = 4


class InvertedResidual(nn.Module):
    """1x1 wider, 3x3 depthwise, 1x1 narrower; a shortcut when nothing changes shape."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        wide = EXPANSION * inner
        self.expand = _unit(inner, wide, 1)
        self.depthwise = _unit(wide, wide, 3, stride, groups=wide)
        self.project = nn.Sequential(nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer))
        self.shortcut = stride == 1 and inner == outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class MobileNetSmall(nn.Module):
    """Eight inverted residuals."""

    input_shape = (1, 3, 32, 32)

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.stem = _unit(3, 16, 3)
        inner, blocks = 16, []
        for outer, stride in BLOCKS:
            blocks.append(InvertedResidual(inner, outer, stride))
            inner = outer
        self.blocks = nn.Sequential(*blocks)
        self.head = _unit(inner, 256, 1)
        self.linear = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _unit(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU6())
