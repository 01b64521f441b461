"""LeNet-300-100 and LeNet-5 as the compression papers use them.

    LeNet-300-100   784 - fc1 300 - ReLU - fc2 100 - ReLU - fc3 10                      266,610 parameters
    LeNet-5         conv1 20@5x5 - pool - conv2 50@5x5 - pool - ip1 500 - ReLU - ip2    431,080 parameters

LeNet-5 is the form of Caffe: max pooling by 2, and no activation after the convolutions (the paper of 1998
has one). Inputs are [N, 1, 28, 28]; LeNet-300-100 also takes [N, 784]. Outputs are logits [N, 10].
Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998;
the MNIST example of Caffe.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LeNet300(nn.Module):
    """Two hidden layers of 300 and 100."""

    input_shape = (1, 1, 28, 28)

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


class LeNet5(nn.Module):
    """Two convolutions, two fully connected layers."""

    input_shape = (1, 1, 28, 28)

    def __init__(self, *, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(800, 500)
        self.ip2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        logits: Tensor = self.ip2(F.relu(self.ip1(torch.flatten(x, 1))))
        return logits
