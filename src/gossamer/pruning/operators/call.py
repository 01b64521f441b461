"""Call: one ATen call as a rule sees it: arguments by the names of the schema, values for tensors, shapes of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..flow import Value


@dataclass(frozen=True)
class Call:
    """`arguments`: as in the operator's schema, defaults filled in, a Value for each tensor; `result`: fake tensors.

    of_norm: the result is the statistic of a normalization that is written out (trace.norm_statistic).
    """

    operator: str
    arguments: dict[str, Any]
    result: Any
    of_norm: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def input(self) -> Value:
        """The first tensor."""
        return next(self.values())

    def values(self) -> Iterator[Value]:
        """All tensors, those in lists too."""
        return (leaf for leaf in torch.utils._pytree.tree_leaves(self.arguments) if isinstance(leaf, Value))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result."""
        return shapes(self.result)[0]

    def each_result(self, value: Value | None = None) -> Any:
        """Values for all results: `value` for those of its shape, fixed ones for the rest."""
        found = [
            value if value is not None and shape == value.shape else Value(shape)
            for shape in shapes(self.result)
        ]
        return found if isinstance(self.result, (tuple, list)) else found[0] if found else None

    def axis(self, name: str = "dim", of: Value | None = None) -> int:
        """An axis argument, counted from the front."""
        rank = len((of or self.input).shape)
        return int(self[name]) % max(rank, 1)

    def axes(self, name: str = "dim", of: Value | None = None) -> list[int]:
        """An argument of several axes; none given means all."""
        rank = len((of or self.input).shape)
        given = self.get(name)
        if given is None or given == []:
            return list(range(rank))
        given = [given] if isinstance(given, int) else given
        return [int(axis) % max(rank, 1) for axis in given]


def shapes(result: Any) -> list[tuple[int, ...]]:
    """Shapes of all tensors of a result."""
    leaves = result if isinstance(result, (tuple, list)) else [result]
    return [tuple(int(n) for n in leaf.shape) if isinstance(leaf, torch.Tensor) else () for leaf in leaves]
