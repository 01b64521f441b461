"""Networks with groups of channels made by hand, for the methods that choose channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.pruning.group import Group, Member
from rounding_samples import normal


def group(
    name: str, units: Tensor | int, *, makes: list[str], reads: list[str], kept: tuple[int, ...] = ()
) -> Group:
    """A group whose channels `makes` (weights, dim 0) produce, with other tensors of that size, and `reads` read."""
    units = torch.arange(units) if isinstance(units, int) else units
    size = int(units.max()) + 1
    removable = torch.ones(size, dtype=torch.bool)
    removable[list(kept)] = False
    members = [Member(name, 0, torch.arange(size), "out") for name in makes]
    members += [Member(name, 1, units, "in") for name in reads]
    return Group(name, size, tuple(members), removable)


class Branches(nn.Module):
    """Two residual branches, the first of a wide inner layer, and a linear layer behind a flatten.

    With `twins`, channels i and i + 4 of the inner layer, and what is made of them, are equal up to a factor: one is enough.
    """

    def __init__(self, *, twins: bool = False) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1)
        self.outer = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 10, 1)
        self.back = nn.Conv2d(10, 6, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(6)
        self.reduce = nn.Conv2d(6, 4, 3, stride=4)
        self.last = nn.Linear(4 * 4, 5)
        for norm in (self.norm, self.norm2):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.running_var, 0.05, 0.2)
        if twins:
            factors = torch.tensor([0.5, 1.5, 2, 0.8])
            self.inner.weight.data[4:] = self.inner.weight.data[:4] * factors.reshape(-1, 1, 1, 1)
            assert self.inner.bias is not None
            self.inner.bias.data[4:] = self.inner.bias.data[:4] * factors
            self.outer.weight.data[:, 4:] = self.outer.weight.data[:, :4] * -0.7
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.norm(self.outer(F.relu(self.inner(x)))) + x)
        x = F.relu(self.norm2(self.back(F.relu(self.second(x)))) + x)
        y: Tensor = self.last(F.relu(self.reduce(x)).flatten(1))
        return y


INNER = group("inner", 8, makes=["inner.weight"], reads=["outer.weight"])
SECOND = group("second", 10, makes=["second.weight"], reads=["back.weight"])
STREAM = group(
    "stem",
    6,
    makes=["stem.weight", "outer.weight", "back.weight"],
    reads=["inner.weight", "second.weight", "reduce.weight"],
)
FLAT = group("reduce", torch.arange(16) // 4, makes=["reduce.weight"], reads=["last.weight"])


def pictures(count: int = 3, size: int = 8, seed: int = 0) -> list[Tensor]:
    return [normal(size, 3, 9, 9, seed=seed + at) for at in range(count)]
