"""Walk: one pass over a traced graph in the order it runs; every tensor gets a value, every operator its rule.

Every dimension of a weight gets fresh labels when the weight is first used. A block under no_grad or autocast is walked
in its place. What has no rule, and no tag that says it works element by element, is a wall. Split axes and the sizes that code
may hold are noted on the way (Flow.grids, Flow.sites).
Raises: ModelError when the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import ModelError
from .flow import Flow, Value, axes
from .operators import MOVES, RULES, Call
from .operators.elements import pointwise
from .trace import Trace, norm_statistic, operator, owner


class Walk:
    """One pass over the graph: a value for every tensor."""

    def __init__(self, flow: Flow, traced: Trace, deadline: float) -> None:
        self.flow, self.traced, self.deadline = flow, traced, deadline
        self.weights: dict[str, Value] = {}
        self.order: dict[str, None] = {}  # weights in the order in which they are used

    def run(self) -> None:
        placeholders = [node for node in self.traced.graph.graph.nodes if node.op == "placeholder"]
        outputs = self.graph(self.traced.graph, [self.placeholder(node) for node in placeholders])
        for value in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(value, Value):
                self.flow.stop(value, "")

    def placeholder(self, node: fx.Node) -> Any:
        fake = node.meta.get("val")
        if not isinstance(fake, Tensor):
            return fake
        shape = tuple(int(n) for n in fake.shape)
        name = self.traced.tensors.get(node.name)
        if name is None:
            return Value(shape)
        if name not in self.weights:
            self.weights[name] = self.weight(name, shape)
        return self.weights[name]

    def weight(self, name: str, shape: tuple[int, ...]) -> Value:
        factors = []
        for dim, size in enumerate(shape):
            if size > 1:
                labels = self.flow.labels.fresh(size)
                self.flow.dims[name, dim] = labels
                factors.append(labels.reshape([size if at == dim else 1 for at in range(len(shape))]))
        return Value(shape, tuple(factors), origin=frozenset((name,)))

    def graph(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in graph.graph.nodes:
            if time.thread_time() > self.deadline:
                raise ModelError(
                    f"finding groups of channels took too long; it stood at {node.name} of layer {owner(node)[-1]!r}. "
                    "Raise `seconds`, or pass an example of a smaller picture or a shorter sequence."
                )
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = self.attribute(graph, str(node.target))
            elif node.op == "output":
                return fx.map_arg(node.args[0], values.__getitem__)
            else:
                values[node] = self.call(node, values)
        return None

    def attribute(self, graph: fx.GraphModule, path: str) -> Any:
        held: Any = graph
        for part in path.split("."):
            held = getattr(held, part)
        return Value(tuple(held.shape)) if isinstance(held, Tensor) else held

    def call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        given: Any = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        args, kwargs = given
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, Value):
                self.order.update(dict.fromkeys(sorted(value.origin)))
        name, stack = operator(node), owner(node)
        self.flow.operator, self.flow.stack = f"aten.{name}", stack
        result = node.meta.get("val")
        if name == "getitem":
            return args[0][args[1]]
        nested = [arg for arg in args if isinstance(arg, fx.GraphModule)]
        if len(nested) == 1 and len(args) > 1:  # a block under no_grad or autocast
            return self.graph(nested[0], args[args.index(nested[0]) + 1 :])
        if name.startswith("_assert"):
            return None
        call = Call(name, _bound(node, args, kwargs), result, norm_statistic(node))
        if not any(isinstance(leaf, Tensor) for leaf in torch.utils._pytree.tree_leaves(result)):
            for value in call.values():
                self.flow.stop(value, "its values decide about the code that runs")
            return result
        found = self.rule(node, call)
        self.note(node, call, found)
        return found

    def rule(self, node: fx.Node, call: Call) -> Any:
        function = RULES.get(call.operator)
        if function is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            function = pointwise
        if function is not None and any(value.factors for value in call.values()):
            return function(self.flow, call)
        if function is not None and not list(call.values()):
            return function(self.flow, call)
        for value in call.values():
            self.flow.stop(value, "no rule says how channels pass through this operator")
        return call.each_result()

    def note(self, node: fx.Node, call: Call, found: Any) -> None:
        """Remember grids, and sizes that may be written in the code."""
        moved = call.operator in MOVES
        for value in torch.utils._pytree.tree_leaves([found, list(call.values()) if moved else []]):
            if not isinstance(value, Value):
                continue
            for factor in value.factors:
                if len(axes(factor)) > 1:
                    self.flow.grids.append(factor)
                if moved:
                    for axis in axes(factor):
                        self.flow.site(axis, factor)


def _bound(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{str(at): value for at, value in enumerate(args)}, **kwargs}
    bound = {item.name: item.default_value for item in schema.arguments if item.has_default_value()}
    bound |= {item.name: value for item, value in zip(schema.arguments, args, strict=False)}
    return bound | kwargs
