"""fuse: groups of nodes that older exporters wrote for one layer become one node again.

    MatMul, Add of a constant vector                                              MatMul with a bias (a linear layer)
    ReduceMean, Sub, Pow 2 | Mul, ReduceMean, Add, Sqrt, Div, Mul, Add            LayerNormalization (before opset 17)
    Div sqrt 2 | Mul, Erf, Add 1, Mul, Mul 0.5                                    Gelu (before opset 20)
    Sigmoid, Mul with its input                                                   Swish (before opset 24)
    QuantizeLinear, perhaps Clip, DequantizeLinear of one scale                   fake_quantize

A group is fused only when nothing else reads what lies between. What is fused computes the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from ...quantizers import Grid
from .graph import Constant, Graph, Node
from .rounding import FAKE_QUANTIZE

Match = tuple[Node, list[Node]]  # the new node, and those it replaces


def fuse(graph: Graph) -> None:
    """Fuse every group of the main graph, in place."""
    _merge(graph, "DequantizeLinear")
    for pattern in PATTERNS:
        search = _Search(graph)
        for node in list(graph.nodes):
            if node.outputs[0] in search.gone:
                continue
            found = pattern(search, node)
            if found is not None:
                search.replace(*found)
        graph.nodes = list(search.result())


def _merge(graph: Graph, op: str) -> None:
    """Let all readers of equal nodes read the first one: quantizers write one DequantizeLinear for each reader."""
    first: dict[tuple[object, ...], str] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == op and node.outputs[0] not in graph.outputs:
            key = (*node.inputs, repr(sorted(node.attributes.items())))
            renamed[node.outputs[0]] = first.setdefault(key, node.outputs[0])
    graph.nodes = [
        node.changed(inputs=tuple(renamed.get(value, value) for value in node.inputs))
        for node in graph.nodes
        if renamed.get(node.outputs[0], node.outputs[0]) == node.outputs[0]
    ]


class _Search:
    """The graph as patterns read it: who makes a value, who reads it, which numbers are constant."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = {value: node for node in graph.nodes for value in node.outputs}
        self.readers = graph.readers()
        self.gone: dict[str, Node] = {}
        self._new: dict[str, Node] = {}

    def replace(self, new: Node, old: list[Node]) -> None:
        self.gone.update({node.outputs[0]: node for node in old})
        self._new[new.outputs[0]] = new

    def result(self) -> Iterator[Node]:
        for node in self.graph.nodes:
            first = node.outputs[0]
            if first in self._new:
                yield self._new[first]
            elif first not in self.gone:
                yield node

    def alone(self, value: str) -> Node | None:
        """The only reader of a value that is not an output."""
        nodes = self.readers.get(value, [])
        if len(nodes) != 1 or value in self.graph.outputs or nodes[0].outputs[0] in self.gone:
            return None
        return nodes[0]

    def then(self, value: str, op: str) -> Node | None:
        """That reader, if it is of the kind `op`."""
        node = self.alone(value)
        return node if node is not None and node.op == op else None

    def constant(self, value: str) -> Constant | None:
        return self.graph.constants.get(value)

    def number(self, value: str) -> float:
        """The number of a constant of one element, else nan."""
        constant = self.constant(value)
        return float(constant.tensor) if constant is not None and constant.tensor.numel() == 1 else math.nan

    def other(self, node: Node, value: str) -> str:
        """The other input of a node with two."""
        return node.inputs[1] if node.inputs[0] == value else node.inputs[0]


def linear(search: _Search, node: Node) -> Match | None:
    if node.op != "MatMul":
        return None
    weight = search.constant(node.inputs[1])
    add = search.then(node.outputs[0], "Add")
    if weight is None or weight.tensor.ndim != 2 or add is None:
        return None
    bias = search.other(add, node.outputs[0])
    vector = search.constant(bias)
    if vector is None or tuple(vector.tensor.shape) != (weight.tensor.shape[1],):
        return None
    return node.changed(inputs=(*node.inputs, bias), outputs=add.outputs), [node, add]


def layer_norm(search: _Search, node: Node) -> Match | None:
    """Starts at the Sub of the mean."""
    mean = search.makers.get(node.inputs[1]) if node.op == "Sub" else None
    if mean is None or mean.op != "ReduceMean" or mean.inputs[0] != node.inputs[0]:
        return None
    centred = node.outputs[0]
    nodes = [mean, node]
    readers = search.readers.get(centred, [])
    square = next((each for each in readers if _is_square(search, each, centred)), None)
    div = next((each for each in readers if each.op == "Div" and each.inputs[0] == centred), None)
    if square is None or div is None or {id(each) for each in readers} != {id(square), id(div)}:
        return None
    if centred in search.graph.outputs:
        return None
    variance = search.then(square.outputs[0], "ReduceMean")
    add = search.then(variance.outputs[0], "Add") if variance else None
    root = search.then(add.outputs[0], "Sqrt") if add else None
    if variance is None or add is None or root is None or search.alone(root.outputs[0]) is not div:
        return None
    rank = search.graph.rank(node.inputs[0])
    if not (_last_axis(search, mean, rank) and _last_axis(search, variance, rank)):
        return None
    epsilon = search.number(search.other(add, variance.outputs[0]))
    mul = search.then(div.outputs[0], "Mul")
    shift = search.then(mul.outputs[0], "Add") if mul else None
    if math.isnan(epsilon) or mul is None or shift is None or search.alone(mean.outputs[0]) is not node:
        return None
    scale, bias = search.other(mul, div.outputs[0]), search.other(shift, mul.outputs[0])
    shapes = {tuple(c.tensor.shape) for c in (search.constant(scale), search.constant(bias)) if c is not None}
    if (
        search.constant(scale) is None
        or search.constant(bias) is None
        or len(shapes) != 1
        or len(shapes.pop()) != 1
    ):
        return None
    nodes += [square, variance, add, root, div, mul, shift]
    new = Node(
        "LayerNormalization",
        (node.inputs[0], scale, bias),
        shift.outputs,
        {"axis": -1, "epsilon": epsilon},
        node.name,
        node.scope,
    )
    return new, nodes


def gelu(search: _Search, node: Node) -> Match | None:
    """x * 0.5 * (1 + erf(x / sqrt 2)), the three factors in any order; starts at the Erf."""
    scaled = search.makers.get(node.inputs[0]) if node.op == "Erf" else None
    if scaled is None or search.alone(scaled.outputs[0]) is not node:
        return None
    x, factor = scaled.inputs[0], search.number(scaled.inputs[1])
    if scaled.op == "Mul" and math.isnan(factor):
        x, factor = scaled.inputs[1], search.number(scaled.inputs[0])
    factor = 1 / factor if scaled.op == "Div" and factor else factor if scaled.op == "Mul" else math.nan
    add = search.then(node.outputs[0], "Add")
    if not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-4) or add is None:
        return None
    if search.number(search.other(add, node.outputs[0])) != 1:
        return None
    nodes, last = [scaled, node, add], add
    wanted = {"x", "half"}
    while wanted:
        mul = search.then(last.outputs[0], "Mul")
        if mul is None:
            return None
        other = search.other(mul, last.outputs[0])
        maker = search.makers.get(other)
        if (
            wanted == {"x", "half"}
            and maker is not None
            and _is_half(search, maker, x)
            and search.alone(other)
        ):
            wanted, nodes = set(), [*nodes, maker]
        elif "x" in wanted and other == x:
            wanted = wanted - {"x"}
        elif "half" in wanted and search.number(other) == 0.5:
            wanted = wanted - {"half"}
        else:
            return None
        nodes.append(mul)
        last = mul
    return Node("Gelu", (x,), last.outputs, {}, node.name, node.scope), nodes


def swish(search: _Search, node: Node) -> Match | None:
    mul = search.then(node.outputs[0], "Mul") if node.op == "Sigmoid" else None
    if mul is None or search.other(mul, node.outputs[0]) != node.inputs[0]:
        return None
    return Node("Swish", node.inputs, mul.outputs, {}, node.name, node.scope), [node, mul]


def grid(search: _Search, node: Node) -> Match | None:
    """Rounding with one constant scale and zero point for the whole tensor, in integers of at most 8 bits."""
    clip = search.then(node.outputs[0], "Clip") if node.op == "QuantizeLinear" else None
    codes = node if clip is None else clip
    back = search.then(codes.outputs[0], "DequantizeLinear") if node.op == "QuantizeLinear" else None
    if back is None or back.inputs[0] != codes.outputs[0]:
        return None
    given = [[search.constant(value) for value in each.inputs[1:]] for each in (node, back)]
    if any(constant is None or constant.tensor.numel() != 1 for each in given for constant in each):
        return None
    pairs = [[constant.tensor.reshape(()) for constant in each if constant is not None] for each in given]
    if len(pairs[0]) != len(pairs[1]) or any(bool(a != b) for a, b in zip(*pairs, strict=True)):
        return None
    scale, zero = pairs[0][0], pairs[0][1] if len(pairs[0]) > 1 else torch.tensor(0, dtype=torch.uint8)
    if zero.dtype not in (torch.int8, torch.uint8) or scale.dtype != torch.float32 or not float(scale) > 0:
        return None
    limits = torch.iinfo(zero.dtype)
    ends = [limits.min, limits.max]
    for at, value in enumerate(clip.inputs[1:3] if clip is not None else ()):
        if value:
            ends[at] = (max, min)[at](ends[at], int(search.number(value)))
    if not ends[0] <= int(zero) <= ends[1]:
        return None
    made = Grid(float(scale), int(zero), ends[0], ends[1])
    return Node(FAKE_QUANTIZE, node.inputs[:1], back.outputs, {"grid": made}, node.name), [node, codes, back]


PATTERNS: tuple[Callable[[_Search, Node], Match | None], ...] = (linear, layer_norm, gelu, swish, grid)


def _is_square(search: _Search, node: Node, value: str) -> bool:
    if node.op == "Mul":
        return node.inputs == (value, value)
    return node.op == "Pow" and node.inputs[0] == value and search.number(node.inputs[1]) == 2


def _is_half(search: _Search, node: Node, x: str) -> bool:
    """Whether a node is 0.5 x."""
    return node.op == "Mul" and x in node.inputs and search.number(search.other(node, x)) == 0.5


def _last_axis(search: _Search, node: Node, rank: int) -> bool:
    """Whether a ReduceMean keeps its axes and goes along the last one alone."""
    given = node.attributes.get("axes")
    if given is None and len(node.inputs) > 1:
        constant = search.constant(node.inputs[1])
        given = tuple(constant.tensor.tolist()) if constant is not None else None
    last = given is not None and len(given) == 1 and given[0] in (-1, rank - 1 if rank else -1)
    return last and bool(node.attributes.get("keepdims", 1))
