"""explain: which kernel runs each layer that holds weights, and why.

One row per node of the graph that reads a stored weight of at least two dimensions (a matrix, a kernel, a
table); the row names the largest one. A weight that passes through a reshaping node first (a transpose, a
slice) is followed to the node that computes with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..artifact.outline import Outline, TensorOutline
from .graph import Node

MOVES = {
    "Transpose",
    "Reshape",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Identity",
    "Split",
    "Expand",
    "Cast",
}


@dataclass(frozen=True)
class Row:
    """One layer: its operator, its largest weight and how that is stored, the kernel and the reason."""

    op: str
    weight: str
    shape: tuple[int, ...]
    layout: str
    kernel: str
    why: str


def rows(nodes: Iterable[Node], tensors: Iterable[TensorOutline]) -> tuple[Row, ...]:
    """The rows in graph order."""
    carried: dict[str, tuple[TensorOutline, ...]] = {item.initializer: (item,) for item in tensors}
    found = []
    for node in nodes:
        held = {item.initializer: item for name in node.inputs for item in carried.get(name, ())}
        if not held:
            continue
        if node.op in MOVES and all(name in carried or not name for name in node.inputs[:1]):
            for output in node.outputs:
                carried[output] = tuple(held.values())
            continue
        largest = max(held.values(), key=lambda item: math.prod(item.node.shape))
        if sum(size > 1 for size in largest.node.shape) < 2:
            continue
        layout = described(largest.node)
        found.append(
            Row(node.op, largest.name, largest.node.shape, layout, "onnxruntime dense", _why(layout))
        )
    return tuple(found)


def described(node: Outline) -> str:
    """The tree of layouts: "sparse(values=codebook)"."""
    inner = ", ".join(f"{name}={described(child)}" for name, child in node.inner.items())
    return f"{node.layout}({inner})" if inner else node.layout


def _why(layout: str) -> str:
    if layout == "dense":
        return "the weight is stored dense"
    return f"no kernel reads {layout} directly; it was decoded when the file was opened"
