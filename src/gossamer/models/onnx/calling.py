"""calling: how the values of a node become the arguments of its function, read off the function's annotations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError
from .graph import Node
from .values import Kernel, Known

FILLED = ("opset", "outputs", "device")  # keywords that the network fills in


@dataclass(frozen=True)
class Signature:
    """`kinds`: Tensor, Ints, Floats, Operand or Scalar for each input; `rest`: for all that follow, if any number may."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    rest: str
    keywords: frozenset[str]

    def kind(self, at: int) -> str:
        return self.kinds[at] if at < len(self.kinds) else self.rest


@functools.cache
def signature(function: Kernel) -> Signature:
    """What a function named after an operator takes."""
    names, kinds, rest, keywords = [], [], "", []
    for parameter in inspect.signature(function).parameters.values():
        kind = str(parameter.annotation).removesuffix(" | None")
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            rest = kind
        elif parameter.kind == inspect.Parameter.KEYWORD_ONLY:
            keywords.append(parameter.name)
        else:
            names.append(parameter.name)
            kinds.append(kind)
    return Signature(tuple(names), tuple(kinds), rest, frozenset(keywords))


def check(node: Node, function: Kernel) -> None:
    """Refuse a node with inputs or attributes that its function does not take."""
    known = signature(function)
    place = f"node {node.name or node.outputs[0]!r} ({node.op})"
    if not known.rest and len(node.inputs) > len(known.kinds):
        more = [name for name in node.inputs[len(known.kinds) :] if name]
        if more:
            raise ModelError(
                f"{place}: input {len(known.kinds) + 1} ({more[0]}) is not known, expected at most "
                f"{len(known.kinds)} inputs. Export the network with a lower opset, or without this option."
            )
    for name in node.attributes:
        if name not in known.keywords and name not in known.names:
            raise ModelError(
                f"{place}: attribute {name!r} is not known. Export the network with a lower opset, or without it."
            )


def call(
    function: Kernel,
    values: Sequence[Any],
    attributes: dict[str, Any],
    *,
    opset: int,
    outputs: int,
    device: torch.device | None,
) -> Any:
    """The function on values of any kind; what it does not take is left out."""
    known = signature(function)
    count = len(values) if known.rest else len(known.kinds)
    given = [_argument(known.kind(at), value, device) for at, value in enumerate(values[:count])]
    if known.kinds[:2] == ("Operand", "Operand") and given and not any(isinstance(v, Tensor) for v in given):
        given[0] = torch.as_tensor(given[0], device=device)
    while given and given[-1] is None:
        given.pop()
    filled = {"opset": opset, "outputs": outputs, "device": device}
    filled = {name: value for name, value in filled.items() if name in known.keywords}
    return function(*given, **attributes, **filled)


def _argument(kind: str, value: Any, device: torch.device | None) -> Any:
    if value is None:
        return None
    if kind in ("Ints", "Floats"):
        return _numbers(value, int if kind == "Ints" else float)
    if kind == "Known" or isinstance(value, list):
        return value
    if isinstance(value, Known):
        if kind in ("Operand", "Scalar") and value.values.ndim == 0:
            return value.values.item()
        return value.tensor(device)
    if kind == "Scalar" and isinstance(value, Tensor) and value.numel() == 1 and value.ndim <= 1:
        return value.reshape(())
    return value


def _numbers(value: Any, kind: type) -> tuple[Any, ...]:
    if isinstance(value, Known):
        return value.numbers()
    if isinstance(value, Tensor):
        return tuple(kind(each) for each in value.reshape(-1).tolist())
    return tuple(value)
