"""explain: which kernel runs each layer that holds weights, and why.

One row per node of the graph that reads a stored weight of at least two dimensions (a matrix, a kernel, a
table); the row names the largest one. A weight that passes through a reshaping node first (a transpose, a
slice), or through DequantizeLinear, is followed to the node that computes with it.

    onnxruntime integers   weight and input both come from DequantizeLinear: ONNX Runtime takes such a layer together
                           with what stands around it as one integer kernel
    onnxruntime packed     the operator reads packed codes (MatMulNBits)
    onnxruntime dense      floats
    SparseGemm, Binary...,
    Ternary...             our operators on the stored bits (see `lower`)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..artifact.outline import Outline, TensorOutline
from .graph import Node
from .lowering import DENSE, Choice

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
    "DequantizeLinear",
}
PACKED = {"MatMulNBits"}


@dataclass(frozen=True)
class Row:
    """One layer: its operator, its largest weight and how that is stored, the kernel and the reason."""

    op: str
    weight: str
    shape: tuple[int, ...]
    layout: str
    kernel: str
    why: str
    ms: float | None = None  # expected, where two kernels were compared
    other_ms: float | None = None


def rows(
    nodes: Iterable[Node], tensors: Iterable[TensorOutline], choices: Mapping[str, Choice] | None = None
) -> tuple[Row, ...]:
    """The rows in graph order; `choices` by the name of a node's first output."""
    carried: dict[str, tuple[TensorOutline, ...]] = {item.initializer: (item,) for item in tensors}
    rounded: set[str] = set()  # what DequantizeLinear gives, moved or not
    found = []
    for node in nodes:
        if node.op == "DequantizeLinear" or (node.op in MOVES and node.inputs[0] in rounded):
            rounded.update(node.outputs)
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
        weights = [name for name in node.inputs if largest in carried.get(name, ())]
        place = node.op, largest.name, largest.node.shape, layout
        choice = (choices or {}).get(node.outputs[0])
        kernel, why = _kernel(node, weights, rounded, layout)
        if choice is None:
            found.append(Row(*place, kernel, why))
        else:
            kernel = kernel if choice.kernel == DENSE else choice.kernel
            found.append(Row(*place, kernel, choice.why, choice.ms, choice.other_ms))
    return tuple(found)


def described(node: Outline) -> str:
    """The tree of layouts: "sparse(values=codebook)"."""
    inner = ", ".join(f"{name}={described(child)}" for name, child in node.inner.items())
    return f"{node.layout}({inner})" if inner else node.layout


def _kernel(node: Node, weights: list[str], rounded: set[str], layout: str) -> tuple[str, str]:
    """(the kernel, the reason) of a node that reads a weight by the names `weights`."""
    if node.op in PACKED:
        return "onnxruntime packed", f"{node.op} reads the codes as they are stored in memory"
    if rounded.issuperset(weights):
        if node.inputs[0] in rounded:
            return "onnxruntime integers", "weight and input are integers times a scale"
        return DENSE, "the weight is integers, but the input is not rounded"
    if layout == "dense":
        return DENSE, "the weight is stored dense"
    if layout == "binary":
        return DENSE, "it has several bases, or is no plain convolution or product"
    return (
        DENSE,
        f"no kernel reads {layout} directly; it was decoded when the file was opened",
    )
