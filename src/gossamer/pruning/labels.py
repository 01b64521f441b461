"""Labels: every channel of every tensor is an integer; channels that must go together are one class (union-find).

    label 0       stays for ever
    label k > 0   one index of one dimension of one weight; classes of labels are the units of pruning

    tie(a, b)     element by element one class;  tie(a, 0) keeps a
    keep(a)       these classes stay
    find(a)       the smallest label of each class
    canon(a)      the same with 0 for every class that stays

Arrays instead of objects: one call ties or looks up millions of labels. Union goes to the smaller root until nothing
changes, paths are shortened at every look-up; near linear.
Source: Tarjan, "Efficiency of a good but not linear set union algorithm", J. ACM 22 (1975); the vectorised hooking is
Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", J. Algorithms 3 (1982).
"""

from __future__ import annotations

import torch
from torch import Tensor

STAYS, MADE = 1, 2  # marks of a class: cannot go; made by a layer (not only held in a raw parameter)


class Labels:
    """A growing union-find; classes carry marks."""

    def __init__(self) -> None:
        self._parent = torch.zeros(1, dtype=torch.int64)
        self._marks = torch.full((1,), STAYS, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Tensor:
        """int64 [count] of new labels, each a class of its own."""
        start = len(self._parent)
        new = torch.arange(start, start + count)
        self._parent = torch.cat([self._parent, new])
        self._marks = torch.cat([self._marks, torch.zeros(count, dtype=torch.uint8)])
        return new

    def find(self, labels: Tensor) -> Tensor:
        root = self._parent[labels]
        while True:
            above = self._parent[root]
            if torch.equal(above, root):
                break
            root = above
        self._parent[labels] = root
        return root

    def canon(self, labels: Tensor) -> Tensor:
        root = self.find(labels)
        return torch.where(self.has(root, STAYS), 0, root)

    def has(self, labels: Tensor, mark: int) -> Tensor:
        """bool, of the shape of `labels`."""
        return (self._marks[self.find(labels)] & mark) != 0

    def mark(self, labels: Tensor, mark: int) -> None:
        roots = self.find(labels).flatten()
        self._marks[roots] = self._marks[roots] | mark

    def keep(self, labels: Tensor) -> None:
        self.mark(labels, STAYS)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """One class for each pair; shapes are broadcast."""
        first, second = self.find(first), self.find(second)
        shape = (first + second).shape
        pairs = torch.stack([first.expand(shape).flatten(), second.expand(shape).flatten()])
        pairs = pairs[:, pairs[0] != pairs[1]]
        still = (pairs == 0).any(0)
        if bool(still.any()):
            self.keep(pairs[:, still])
            pairs = pairs[:, ~still]
        a, b = pairs
        while a.numel():
            a, b = self.find(a), self.find(b)
            apart = a != b
            low, high = torch.minimum(a, b)[apart], torch.maximum(a, b)[apart]
            if not low.numel():
                break
            marks = self._marks[high]
            self._parent.scatter_reduce_(0, high, low, "amin")
            for bit in (STAYS, MADE):
                self.mark(high[(marks & bit) != 0], bit)
            a, b = low, high
