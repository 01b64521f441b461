"""Readers of activations: through pools, norms and sums, up to the next layer or activation."""

from __future__ import annotations

import torch
from torch import nn

from gossamer.pruning.readers import readers


class Block(nn.Module):
    """first - a - {left - b, skip} - sum - c - pool - last; `b` is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.left = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b, self.c, self.unused = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.norm, self.right = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        a = self.a(self.first(x))
        y = self.right(self.norm(self.b(self.left(a))))
        y = self.c(self.b(y) + nn.functional.max_pool2d(a, 1))
        return self.last(y.mean((2, 3)))


def test_readers_are_the_next_layers_and_no_further():
    found = readers(Block(), torch.zeros(1, 3, 4, 4), ["a", "b", "c", "unused"])

    assert found == {"a": {"left"}, "b": {"right"}, "c": {"last"}}


def test_an_activation_at_the_end_has_no_reader():
    found = readers(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.zeros(1, 2), ["1"])

    assert found == {"1": set()}
