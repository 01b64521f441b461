"""Networks, inputs and measurements that the tests of weight methods share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer import formats
from gossamer.data import load_data
from gossamer.formats import Uniform
from gossamer.models import load_model
from gossamer.steps import Context, FreezeNorms
from gossamer.steps.base import weights


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(columns: int, seed: int = 0, count: int = 400) -> Tensor:
    """Inputs [count, columns] whose columns are far from independent."""
    return normal(count, columns, seed=seed) @ (
        torch.eye(columns) + 0.4 * normal(columns, columns, seed=seed + 1)
    )


class Mixed(nn.Module):
    """A convolution, a grouped one with stride and padding, and a linear layer; dropout, so that modes matter."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, (3, 2), stride=2, padding=(1, 0), groups=4)
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.first(x))))
        y: Tensor = self.last(self.dropout(x).mean((2, 3)))
        return y


def batches(count: int = 3, size: int = 4) -> list[Tensor]:
    return [normal(size, 3, 9, 8, seed=seed) for seed in range(count)]


def quantize(model: nn.Module, **options: object) -> nn.Module:
    """A copy whose weights carry a Uniform format."""
    twin = copy.deepcopy(model)
    for name in weights(twin):
        formats.refine(twin, name, Uniform(**options))  # type: ignore[arg-type]
    return twin


def folded(model: nn.Module) -> nn.Module:
    return FreezeNorms().apply(model, Context(example=example(model)))


def example(model: nn.Module, size: int = 2) -> Tensor:
    return normal(size, *model.input_shape[1:])


class Cifar:
    """ResNet-20, folded, with 2,000 test and 512 training pictures."""

    def __init__(self) -> None:
        data = load_data("cifar10")
        self.model = folded(load_model("resnet20", "resnet20_cifar10"))
        rows = np.sort(np.random.default_rng(0).choice(len(data.test), 2000, replace=False))
        self.x = torch.from_numpy(data.preprocess(data.test.inputs[rows]))
        self.labels = torch.from_numpy(data.test.labels[rows])
        rows = np.sort(np.random.default_rng(1).choice(len(data.train), 512, replace=False))
        self.batches = list(torch.from_numpy(data.preprocess(data.train.inputs[rows])).split(64))

    @torch.no_grad()
    def percent(self, model: nn.Module) -> float:
        model = formats.baked(model)
        hits = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(self.x.split(250), self.labels.split(250), strict=True)
        )
        return 100 * hits / len(self.x)
