"""Trace: a model and one example -> its ATen calls, the weight behind each placeholder, and the layer of each call.

torch.export records the model in eval mode (non-strict); nothing of the model changes. Writes into a part of a tensor
(x[:, 0] = y) are turned into operators that return a new tensor, so every value has one maker. Tied weights are one tensor:
all its names are kept.

Raises: ModelError with torch's own first line and a remedy, when the model cannot be recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from .. import tracing
from ..errors import ModelError
from ..methods.layer_inputs import evaluating

_REMEDIES = (
    tracing.DATA_DEPENDENT,
    (
        ("takes", "missing", "unexpected keyword", "shapes cannot be multiplied", "expected input"),
        "Pass an example that forward takes: a tensor, a tuple of arguments, or a dict of keyword arguments.",
    ),
    (("",), "Use torch operators only inside forward, and pass an example that forward takes."),
)

# operators in place that torch does not mark as pointwise, though they are
_HARMLESS = frozenset(("relu6", "dropout", "feature_dropout", "alpha_dropout", "batch_norm", "instance_norm"))


@dataclass(frozen=True)
class Trace:
    """The recorded graph; `tensors`: {placeholder: name of a parameter or buffer}, `aliases`: {name: first name}."""

    graph: fx.GraphModule
    tensors: dict[str, str]
    aliases: dict[str, str]


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of one call: a tensor, a tuple or list of arguments, or a dict."""
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    if isinstance(example, (tuple, list)):
        return tuple(example), {}
    return (example,), {}


def trace(model: nn.Module, example: Any) -> Trace:
    """Record `model` on `example`: a tensor, a tuple of arguments, or a dict of keyword arguments."""
    args, kwargs = arguments(example)
    with tracing.quiet(), evaluating(model), _without_fast_paths():
        try:
            program = torch.export.export(model, args, kwargs, strict=False)
            if any(_writes(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
        except Exception as error:  # recording runs the user's code, which may raise anything
            raise ModelError(
                f"{type(model).__name__} cannot be traced{tracing.place(error)}, so its groups of channels are not "
                f"known: {tracing.said(error)}. {tracing.remedy(error, _REMEDIES)}"
            ) from error
    signature = program.graph_signature
    aliases = _aliases(model)
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return Trace(program.graph_module, {key: aliases.get(name, name) for key, name in named.items()}, aliases)


def owner(node: fx.Node) -> tuple[str, ...]:
    """Paths of the modules whose forward made this call, outermost first; the network itself is ""."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    return tuple(re.sub(r"@\d+$", "", str(path)) for path, _ in stack) or ("",)


def operator(node: fx.Node) -> str:
    """`conv2d` of aten.conv2d.default, `relu` of aten.relu_.default."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else getattr(node.target, "__name__", "")
    return str(name).rstrip("_") if not str(name).startswith("_") else str(name)


def norm_statistic(node: fx.Node) -> bool:
    """Whether this call is the mean, or the mean square, of a normalization written out: x / sqrt(mean(x^2) + eps).

    Told by what becomes of it: it goes into a root, perhaps by way of casts, sums and bounds; or it is taken from its operand.
    """
    if operator(node) not in ("mean", "var") or not node.users:
        return False
    return all(_into_root(user) or _centres(user, node) for user in node.users)


def _into_root(node: fx.Node) -> bool:
    name = operator(node)
    if name in ("rsqrt", "sqrt"):
        return True
    passes = name in ("add", "clamp", "clamp_min", "to", "_to_copy")
    return passes and bool(node.users) and all(map(_into_root, node.users))


def _centres(node: fx.Node, mean: fx.Node) -> bool:
    return operator(node) == "sub" and node.args[0] is mean.args[0] and node.args[1] is mean


def _aliases(model: nn.Module) -> dict[str, str]:
    """{every name of a tensor: its first name}."""
    first: dict[int, str] = {}
    everything = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: first.setdefault(id(tensor), name) for name, tensor in everything}


def _writes(node: fx.Node) -> bool:
    """Whether a call changes a tensor in a way other than element by element."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return False
    name = operator(node)
    pointwise = torch.Tag.pointwise in node.target.tags and name not in ("copy", "fill")
    return not pointwise and name not in _HARMLESS


@contextmanager
def _without_fast_paths() -> Iterator[None]:
    """nn.TransformerEncoder and nn.MultiheadAttention as ordinary operators."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def tensors_of(result: Any) -> list[Tensor]:
    """All tensors in whatever a model returns, in a fixed order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
