"""fold: what depends on constants alone is computed when the network is loaded.

So the weights of an already quantized network (DequantizeLinear of integers) become float weights, and branches whose
condition is constant become straight. A moved weight remembers where it comes from, so that tied weights stay tied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError
from .calling import call, check
from .graph import Constant, Graph, Node
from .operators import OPERATORS
from .values import Known

MOVES = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "DequantizeLinear")
ATTRIBUTES = ("value_float", "value_int", "value_floats", "value_ints")


def fold(graph: Graph) -> None:
    """Move every node of constants alone from the nodes to the constants, in place."""
    graph.nodes = _folded(graph.nodes, graph)


def _folded(nodes: list[Node], graph: Graph) -> list[Node]:
    kept: list[Node] = []
    for node in nodes:
        if (
            node.op == "CastLike" and node.inputs[1] in graph.types
        ):  # the type is known, whatever the values are
            node = node.changed(
                op="Cast", inputs=node.inputs[:1], attributes={"to": graph.types[node.inputs[1]]}
            )
        if node.op == "Constant":
            name, tensor = node.outputs[0], _constant(node)
            trains = tensor.is_floating_point() and tensor.numel() > 1
            graph.constants[name] = Constant(tensor, name, trains, (name, False))
        elif node.op == "If":
            kept += _branch(node, graph)
        elif all(value in graph.constants for value in node.inputs if value) and any(node.inputs):
            if not _compute(node, graph):
                kept.append(node)
        else:
            kept.append(node)
    return kept


def _branch(node: Node, graph: Graph) -> list[Node]:
    """The nodes of the branch that is taken, when that is known; else the node with both branches folded."""
    branches = {name: inner for name, inner in node.attributes.items() if isinstance(inner, Graph)}
    for inner in branches.values():
        graph.constants.update(inner.constants)
    condition = graph.constants.get(node.inputs[0])
    if condition is None:
        for inner in branches.values():
            inner.nodes = _folded(inner.nodes, graph)
        return [node]
    taken = branches["then_branch" if bool(condition.tensor.item()) else "else_branch"]
    ends = [Node("Identity", (end,), (out,)) for end, out in zip(taken.outputs, node.outputs, strict=True)]
    return _folded([*taken.nodes, *ends], graph)


def _compute(node: Node, graph: Graph) -> bool:
    """Fold one node; False for what makes no tensors (sequences)."""
    function = OPERATORS[node.op]
    check(node, function)
    values = [graph.constants[value].tensor if value else None for value in node.inputs]
    with torch.no_grad():
        try:
            result = call(
                function, values, node.attributes, opset=graph.opset, outputs=len(node.outputs), device=None
            )
        except ModelError:
            raise
        except Exception as error:  # a node that its own constants do not fit may fail in any way
            raise ModelError(
                f"node {node.name or node.outputs[0]!r} ({node.op}) of constants fails: {error}. Export the network again."
            ) from error
    made = result if isinstance(result, tuple) else (result,)
    made = tuple(each.tensor() if isinstance(each, Known) else each for each in made)
    if not all(isinstance(each, Tensor) for each in made):
        return False
    origin = next(
        (graph.constants[value] for value in node.inputs if value and graph.constants[value].label), None
    )
    for value, tensor in zip(node.outputs, made, strict=False):
        graph.constants[value] = _derived(node, origin, tensor.contiguous())
    return True


def _derived(node: Node, origin: Constant | None, tensor: Tensor) -> Constant:
    """The constant that a node makes of `origin`."""
    if origin is None:
        return Constant(tensor)
    moved = node.op in MOVES and tensor.is_floating_point()
    weight = moved and tensor.numel() > 1 and (origin.weight or node.op in ("DequantizeLinear", "Cast"))
    source = None
    if origin.source is not None and origin.tensor.dtype == tensor.dtype:
        if node.op == "Identity":
            source = origin.source
        elif node.op == "Transpose" and tensor.ndim == 2 and tensor.shape == origin.tensor.T.shape:
            plain = node.attributes.get("perm") == (0, 1)
            source = (origin.source[0], origin.source[1] if plain else not origin.source[1])
    return Constant(tensor, origin.label, weight, source)


def _constant(node: Node) -> Tensor:
    value: Any = node.attributes.get("value")
    if value is None:
        name = next((name for name in ATTRIBUTES if name in node.attributes), None)
        if name is None:
            given = ", ".join(node.attributes) or "nothing"
            raise ModelError(
                f"node {node.name or node.outputs[0]!r} (Constant) holds {given}, expected numbers."
            )
        kind = torch.float32 if "float" in name else torch.int64
        value = torch.tensor(node.attributes[name], dtype=kind)
    tensor: Tensor = value
    return tensor
