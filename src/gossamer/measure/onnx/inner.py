"""inner: the graphs inside a node (If, Loop, Scan): what they hold, and what they read from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto

from .file import Initializer, Model, initializer

SHOWN = 8  # operators in a note


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs inside a node."""
    inner = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    return inner + [body for attribute in node.attribute for body in attribute.graphs]


def initializers(node: NodeProto, model: Model) -> dict[str, Initializer]:
    """The initialisers of the graphs inside, named "number of the graph/name"."""
    found = {}
    for at, body in enumerate(subgraphs(node)):
        for tensor in body.initializer:
            found[f"{at}/{tensor.name}"] = initializer(
                tensor.name, tensor, model.folder, model.where, in_graph=model.packed is not None
            )
        for each in body.node:
            found |= {f"{at}/{name}": item for name, item in initializers(each, model).items()}
    return found


def captured(node: NodeProto) -> list[str]:
    """Values of the outer graph that the graphs inside read."""
    found: dict[str, None] = {}
    for body in subgraphs(node):
        own = {item.name for item in (*body.input, *body.initializer)}
        for each in body.node:
            found |= dict.fromkeys(
                name for name in (*each.input, *captured(each)) if name and name not in own
            )
            own.update(each.output)
        found |= dict.fromkeys(item.name for item in body.output if item.name not in own)
    return list(found)


def described(node: NodeProto) -> str:
    """The operators inside, the most frequent first: "Conv x2, Relu x1"."""
    kinds = Counter(kind for body in subgraphs(node) for kind in _kinds(body))
    listed = ", ".join(f"{kind} x{count}" for kind, count in kinds.most_common(SHOWN))
    return listed + (f" and {len(kinds) - SHOWN} other kinds" if len(kinds) > SHOWN else "")


def _kinds(body: GraphProto) -> Iterator[str]:
    for node in body.node:
        yield node.op_type
        for inner in subgraphs(node):
            yield from _kinds(inner)
