"""Readers: the layers that read what an activation module gives, without another activation in between.

Pooling, norms, sums and moves of the elements are passed through; convolutions and linear layers read. Told from the graph
of one example, by the paths of the modules that make the calls.
Raises: ModelError when the model cannot be traced.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import fx, nn

from .trace import operator, owner, trace

LAYERS = frozenset(("linear", "matmul", "mm", "addmm", "bmm")) | frozenset(
    f"{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)
)


def readers(model: nn.Module, example: Any, activations: Collection[str]) -> dict[str, set[str]]:
    """{path of an activation: paths of the layers that read it}; an activation that never runs is not in it.

    `example`: a tensor, a tuple of arguments, or a dict of keyword arguments.
    """
    wanted = frozenset(activations)
    found: dict[str, set[str]] = {}
    for node in trace(model, example).graph.graph.nodes:
        path = _among(node, wanted)
        if path is None or all(_among(user, wanted) == path for user in node.users):
            continue  # no activation, or not its last call
        found.setdefault(path, set()).update(_read(node, path, wanted))
    return found


def _read(start: fx.Node, path: str, activations: frozenset[str]) -> set[str]:
    layers: set[str] = set()
    seen, todo = {start}, list(start.users)
    while todo:
        node = todo.pop()
        if node in seen or _among(node, activations) not in (None, path):
            continue
        seen.add(node)
        if operator(node) in LAYERS:
            layers.add(owner(node)[-1])
        else:
            todo += node.users
    return layers


def _among(node: fx.Node, activations: frozenset[str]) -> str | None:
    """The activation whose call this is."""
    if node.op != "call_function":
        return None
    return next((path for path in owner(node) if path in activations), None)
