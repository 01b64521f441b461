"""padding: what a Pad node of constants puts around its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import graph

Constant = Callable[[str], np.ndarray | None]  # the values of a name, where it has some


@dataclass(frozen=True)
class Padding:
    """How many elements come before and after each axis (negative: go), and their value; None where it varies."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    value: float | None

    @property
    def around(self) -> tuple[int, int, int, int] | None:
        """Top, left, bottom and right, where an image [N, C, H, W] grows by them and nothing else does."""
        if len(self.before) != 4 or any((*self.before[:2], *self.after[:2])):
            return None
        top, left, bottom, right = *self.before[2:], *self.after[2:]
        return (top, left, bottom, right) if min(top, left, bottom, right) >= 0 else None


def of(node: graph.Node, attributes: graph.Attributes, rank: int, constant: Constant) -> Padding | None:
    """The padding of an input with so many axes; None of other nodes, and where the amounts are no constants."""
    inputs = (*node.inputs, "", "", "")[:4]
    if node.op != "Pad" or node.domain not in ("", "ai.onnx"):
        return None
    pads, value, axes = (constant(name) if name else None for name in inputs[1:])
    if axes is None:
        axes = None if inputs[3] else np.arange(rank)
    if pads is None or axes is None or pads.dtype != np.int64 or axes.dtype != np.int64:
        return None
    if axes.ndim != 1 or axes.size > rank or pads.shape != (2 * axes.size,):
        return None
    before, after = np.zeros((2, rank), np.int64)
    if not ((-rank <= axes) & (axes < rank)).all():
        return None
    before[axes], after[axes] = np.split(pads, 2)
    number = 0.0 if not inputs[2] else None
    if value is not None and value.size == 1:
        number = float(value.item())
    plain = attributes.texts.get("mode", "constant") == "constant"
    return Padding(tuple(before.tolist()), tuple(after.tolist()), number if plain else None)
