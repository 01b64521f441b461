"""Layer graph: which layer alone feeds which, with only channelwise, positively homogeneous operators between.

    link    conv or linear -> (ReLU | PReLU | leaky ReLU | pooling | mean | flatten | dropout)* -> conv or linear
            and every value on the way has one reader

For such an operator f(s x) = s f(x) for every s > 0 per channel, so a scale can move from one layer to the next. ReLU6
is no such operator; links through it are marked. Read off the graph of torch.export in eval mode; the model is
left as it was. A layer is told by its weight's parameter name, so modules and functional calls are alike.
Raises: ModelError when the model cannot be traced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .. import tracing
from ..errors import ModelError
from .layer_inputs import Batch, evaluating

LAYERS = frozenset(("conv1d", "conv2d", "conv3d", "linear"))
RECTIFIERS = frozenset(("relu", "prelu", "leaky_relu"))
SAME = frozenset(("dropout", "contiguous", "clone", "alias", "detach"))
POOLS = frozenset(
    f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)
)
FLATTENS = frozenset(("flatten", "view", "reshape"))


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: parameter names, groups, and whether its input is padded."""

    weight: str
    bias: str | None
    groups: int
    padded: bool

    @property
    def path(self) -> str:
        """The module's path, where the layer is a module."""
        return self.weight.rpartition(".")[0]


@dataclass(frozen=True)
class Link:
    """`first` alone feeds `second`; `spread` inputs of the second belong to each output channel of the first."""

    first: Layer
    second: Layer
    through: tuple[str, ...]
    relu6: tuple[str, ...]  # paths of the modules that are ReLU6 on the way; "" for a functional one
    spread: int


@dataclass(frozen=True)
class LayerGraph:
    """Links in the order in which their first layers run; `loose`: {layer: why it feeds no other through a link}."""

    links: tuple[Link, ...] = ()
    loose: dict[str, str] = field(default_factory=dict)
    before_relu: frozenset[str] = frozenset()  # weights of the layers whose only reader is a ReLU
    relu6_calls: dict[str, int] = field(default_factory=dict)  # how often each ReLU6 module is called


def layer_graph(model: nn.Module, example: Batch) -> LayerGraph:
    """The links of `model`; `example`: one batch of inputs."""
    args = example if isinstance(example, tuple) else (example,)
    with evaluating(model), tracing.quiet():
        try:
            program = torch.export.export(model, args, strict=False)
        except Exception as error:  # tracing runs the user's code, which may raise anything
            raise ModelError(
                f"{type(model).__name__} cannot be traced, so its pairs of layers are not known: {tracing.said(error)}. "
                "Use torch operators only inside forward, without control flow that depends on values."
            ) from error
    return _Reader(program).read()


class _Reader:
    def __init__(self, program: Any) -> None:
        self.nodes = list(program.graph.nodes)
        self.parameters: dict[str, str] = dict(program.graph_signature.inputs_to_parameters)

    def read(self) -> LayerGraph:
        links: list[Link] = []
        loose: dict[str, str] = {}
        before_relu: set[str] = set()
        relu6: dict[str, int] = {}
        for node in self.nodes:
            kind = _kind(node)
            if kind == "relu6":
                relu6[_activation(node)] = relu6.get(_activation(node), 0) + 1
            if kind not in LAYERS:
                continue
            layer = self.layer(node)
            if isinstance(layer, str):
                loose[_owner(node)[0] or node.name] = layer
                continue
            if len(node.users) == 1 and _kind(next(iter(node.users))) == "relu":
                before_relu.add(layer.weight)
            link = self.follow(node, layer)
            if isinstance(link, str):
                loose[layer.path or layer.weight] = link
            else:
                links.append(link)
        return LayerGraph(tuple(links), loose, frozenset(before_relu), relu6)

    def layer(self, node: Any) -> Layer | str:
        """The layer that a node is, or why it is none."""
        given = dict(enumerate(node.args)) | {_ARGUMENTS.get(k, k): v for k, v in node.kwargs.items()}
        weight, bias = given[1], given.get(2)
        if weight.name not in self.parameters:
            return "its weight is computed (does it carry a format?); equalize plain weights"
        if bias is not None and bias.name not in self.parameters:
            return "its bias is computed (does it carry a format?)"
        if len(weight.users) > 1 or (bias is not None and len(bias.users) > 1):
            return "its parameters are used more than once"
        convolution = _kind(node) != "linear"
        if len(node.meta["val"].shape) != len(weight.meta["val"].shape) and convolution:
            return "its input has no batch axis"
        padding = given.get(4, 0) if convolution else 0
        padded = padding == "same" if isinstance(padding, str) else any(_tuple(padding))
        groups = given.get(6, 1) if convolution else 1
        return Layer(
            self.parameters[weight.name],
            None if bias is None else self.parameters[bias.name],
            groups,
            padded,
        )

    def follow(self, node: Any, first: Layer) -> Link | str:
        """The link that starts at a layer's node, or why there is none."""
        through: list[str] = []
        relu6: list[str] = []
        spread, last = 1, _kind(node) == "linear"  # last: channels are on the last axis, else on axis 1
        while True:
            if len(node.users) != 1:
                return (
                    f"its output has {len(node.users)} readers" if node.users else "nothing reads its output"
                )
            before, node = node, next(iter(node.users))
            kind, shape = _kind(node), tuple(before.meta["val"].shape)
            if node.op == "output":
                return "its output leaves the network"
            if kind in LAYERS and node.args[0] is before:
                second = self.layer(node)
                if isinstance(second, str):
                    return f"feeds a layer that cannot take a scale: {second}"
                if (kind == "linear") != (last or len(shape) == 2):
                    return f"feeds {kind} along another axis than its channels"
                return Link(first, second, tuple(through), tuple(relu6), spread)
            if kind == "relu6":
                relu6.append(_activation(node))
            elif kind in FLATTENS and not last and _flattens(shape, tuple(node.meta["val"].shape)):
                spread, last = math.prod(shape[2:]), True
            elif kind == "mean" and not last and len(node.args) > 1:
                if any(axis % len(shape) < 2 for axis in node.args[1]):
                    return "feeds a mean over samples or channels"
            elif kind in POOLS:
                if last:
                    return f"feeds {kind} along another axis than its channels"
            elif kind not in RECTIFIERS | SAME:
                return f"feeds {kind}, which does not pass a scale on"
            through.append(kind)


_ARGUMENTS = {"input": 0, "weight": 1, "bias": 2, "stride": 3, "padding": 4, "dilation": 5, "groups": 6}


def _kind(node: Any) -> str:
    """`conv2d` for aten.conv2d.default, `relu` for aten.relu_.default; `relu6` for a hardtanh from 0."""
    if node.op != "call_function":
        return str(node.op)
    parts = str(node.target).split(".")
    name = parts[1].rstrip("_") if len(parts) > 1 else parts[0]
    if name == "hardtanh":
        low = node.args[1] if len(node.args) > 1 else -1.0
        return "relu6" if low == 0 else name
    return name


def _owner(node: Any) -> tuple[str, str]:
    """The path and the class of the module whose forward made this call."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path, cls = list(stack.values())[-1]
    return path, cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"


def _activation(node: Any) -> str:
    """The path of the ReLU6 module that made this call; "" for a functional call."""
    path, cls = _owner(node)
    return path if cls.rpartition(".")[2] in ("ReLU6", "Hardtanh") else ""


def _flattens(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return after == (before[0], math.prod(before[1:]))


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
