"""constants: what a graph knows before it sees an input.

    of initialisers   a node that reads nothing else runs once, when the file is opened
    of shapes         so does one that reads shapes, which are fixed here, while it computes whole numbers, moves
                      no weight, or hands memory on; with other inputs an engine may have to run it again

Such a node is no operation: the node that reads its result reads the weights behind it. Random numbers and the
nodes with graphs inside are never constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto

from . import ops
from .file import STANDARD, Model, Value
from .inner import captured, subgraphs
from .weights import HANDED_ON, Weights

OF_SHAPES = ("Shape", "Size", "EyeLike")
RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)


@dataclass(frozen=True)
class Constant:
    """One value, and the weights behind it."""

    weights: tuple[str, ...] = ()
    bytes: int = 0  # 0 for shapes, axes and numbers of a formula
    handed_on: bool = True  # its elements are those of the weights
    of_shapes: bool = False


class Constants:
    """The constants among the values of a graph, by name; nodes are taken in their order."""

    def __init__(self, model: Model, values: Mapping[str, Value], weights: Weights) -> None:
        self._values = values
        self._found = {
            name: Constant((name,), item.value.bytes) if weights.holds(name) else Constant()
            for name, item in model.initializers.items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Constant:
        return self._found[name]

    def take(self, node: NodeProto) -> bool:
        """Whether the node is constant; its results are remembered then."""
        own = node.domain in STANDARD and node.op_type in (*OF_SHAPES, "Constant")
        names = used(node)
        if subgraphs(node) or node.op_type in RANDOM:
            return False
        if not own and (not names or any(name not in self._found for name in names)):
            return False
        behind = [self._found[name] for name in names if name in self._found]
        of_shapes = node.op_type in OF_SHAPES or any(constant.of_shapes for constant in behind)
        held = tuple(dict.fromkeys(weight for constant in behind for weight in constant.weights))
        if of_shapes and not self._is_light(node, held):
            return False
        handed_on = node.op_type in HANDED_ON and all(constant.handed_on for constant in behind)
        for name in filter(None, node.output):
            value = self._values.get(name)
            size = value.bytes if value and (held or _is_float(value)) else 0
            if node.op_type == "DequantizeLinear":  # engines keep the integers and scale them in the product
                size = sum(constant.bytes for constant in behind)
            self._found[name] = Constant(held, size, handed_on, of_shapes)
        return True

    def _is_light(self, node: NodeProto, held: tuple[str, ...]) -> bool:
        """Whether a node that depends on shapes is worth no operation."""
        value = self._values.get(next(iter(node.output), ""))
        whole = value is not None and not _is_float(value)
        return whole or node.op_type in ops.VIEWS or (node.op_type in ops.MOVES and not held)


def used(node: NodeProto) -> list[str]:
    """The values a node reads, each once; the second of CastLike only lends its type."""
    names = node.input[:1] if node.op_type == "CastLike" else node.input
    return list(dict.fromkeys([*filter(None, names), *captured(node)]))


def _is_float(value: Value) -> bool:
    return "float" in value.dtype
