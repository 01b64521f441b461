"""ResNet-20, 32, 44 and 56 for 32 x 32 pictures, with the parameter-free shortcut (option A).

    3x3 stem of 16 channels - three stages of n basic blocks with 16, 32, 64 channels - global mean - linear
    depth = 6 n + 2;  269,722 / 464,154 / 658,586 / 853,018 parameters for n = 3, 5, 7, 9

A block is conv - BN - ReLU - conv - BN - sum - ReLU. Where the width doubles, the shortcut takes every second
pixel and pads the channels with zeros, a quarter of the new width on either side. Names equal those of the
public checkpoints.
Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, section 4.2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `stride` 2 halves the picture and doubles the width."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride = stride
        self.pad = (outer - inner) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class ResNetCifar(nn.Module):
    """`blocks` basic blocks in each of three stages."""

    input_shape = (1, 3, 32, 32)

    def __init__(self, blocks: int, *, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(inner: int, outer: int, stride: int, blocks: int) -> nn.Sequential:
    rest = [BasicBlock(outer, outer, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inner, outer, stride), *rest)
