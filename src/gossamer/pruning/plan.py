"""Plan: a cut as plain data, so that it can be stored beside the weights and repeated on a fresh model.

    kept         {group: units that stay}
    tensors      {name: {dim: indices that stay}}
    attributes   {path of a module: {attribute: its new value}}      an integer or a list of integers
    shapes       {name: shape before the cut}

As JSON the keys are the same, with a `version`. A plan comes from outside: kinds, ranges and order are checked before
anything is touched, and an attribute can only become a smaller number of the same kind.
Raises: OptionError for JSON that is no plan, ModelError for a model that it does not fit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import ModelError, OptionError, nearest
from .heads import FewerHeads

VERSION = 1
Sizes: TypeAlias = int | list[int]


@dataclass(frozen=True)
class Plan:
    """What stays; see above. `walls`: groups that were asked to shrink but stayed whole, and why (not stored)."""

    kept: dict[str, list[int]]
    tensors: dict[str, dict[int, list[int]]]
    attributes: dict[str, dict[str, Sizes]]
    shapes: dict[str, list[int]]
    walls: dict[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> str:
        tensors = {
            name: {str(dim): kept for dim, kept in dims.items()} for name, dims in self.tensors.items()
        }
        return json.dumps(
            {
                "version": VERSION,
                "kept": self.kept,
                "tensors": tensors,
                "attributes": self.attributes,
                "shapes": self.shapes,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Plan:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OptionError(
                f"plan: this is no JSON ({error}). Pass the text that to_json returned."
            ) from error
        table = _table(data, "plan")
        if table.get("version") != VERSION:
            raise OptionError(f"plan: version {table.get('version')!r}, expected {VERSION}.")
        kept, tensors, attributes, shapes = (
            _table(table.get(key), key) for key in ("kept", "tensors", "attributes", "shapes")
        )
        return cls(
            {name: _indices(value, f"kept of {name!r}") for name, value in kept.items()},
            {
                name: {_dim(d, name): _indices(v, f"tensor {name!r}") for d, v in _table(dims, name).items()}
                for name, dims in tensors.items()
            },
            {
                path: {attribute: _size(v, f"{path}.{attribute}") for attribute, v in _table(a, path).items()}
                for path, a in attributes.items()
            },
            {name: _numbers(value, f"shape of {name!r}") for name, value in shapes.items()},
        )

    def apply(self, model: nn.Module, *, share: bool = False) -> nn.Module:
        """A cut copy of `model`, which must be as large as the one that the plan was made for.

        share: tensors that are not cut are those of `model`, for a copy that is only run.
        """
        self._check(model)
        memo: dict[int, Any] = {id(t): t for t in named_tensors(model).values() if share}
        smaller = copy.deepcopy(model, memo)
        for name, dims in self.tensors.items():
            replace_tensor(smaller, name, kept_part(named_tensors(smaller)[name], dims))
        for path, attributes in self.attributes.items():
            module = smaller.get_submodule(path)
            for attribute, size in attributes.items():
                old = getattr(module, attribute)
                setattr(module, attribute, type(old)(size) if isinstance(size, list) else size)
        for module in smaller.modules():
            FewerHeads.adopt(module)
        return smaller

    def _check(self, model: nn.Module) -> None:
        known = named_tensors(model)
        for name, dims in self.tensors.items():
            if name not in known:
                raise ModelError(f"plan: the model has no tensor {name!r}. {nearest(name, known)}")
            shape = list(known[name].shape)
            expected = self.shapes.get(name)
            if shape != expected:
                raise ModelError(
                    f"plan: {name} has shape {shape}, expected {expected}. Apply a plan to a fresh, uncut model of the "
                    "class it was made for."
                )
            for dim, kept in dims.items():
                if dim >= len(shape) or kept[-1] >= shape[dim]:
                    raise ModelError(
                        f"plan: {name} has no index {kept[-1]} in dimension {dim} of shape {shape}."
                    )
        modules = dict(model.named_modules(remove_duplicate=False))
        for path, attributes in self.attributes.items():
            if path not in modules:
                raise ModelError(f"plan: the model has no module {path!r}. {nearest(path, modules)}")
            for attribute, size in attributes.items():
                old = vars(modules[path]).get(attribute)
                if not _shrinks(old, size):
                    raise ModelError(
                        f"plan: {path or 'the network'}.{attribute} is {old!r} and cannot become {size!r}; expected a "
                        "positive integer, or integers, not larger than before."
                    )


def kept_part(tensor: Tensor, dims: Mapping[int, list[int]]) -> Tensor:
    """The tensor with only the kept indices of some dimensions."""
    for dim, kept in dims.items():
        tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
    return tensor


def replace_tensor(model: nn.Module, name: str, new: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, under all its names (weights may be tied)."""
    everything = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    old = next(tensor for found, tensor in everything if found == name)
    new = new.detach().clone()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for found, tensor in everything:
        if tensor is old:
            path, _, leaf = found.rpartition(".")
            module = model.get_submodule(path)
            table = module._parameters if leaf in module._parameters else module._buffers
            table[leaf] = new  # type: ignore[assignment]  # one of both tables, as found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _shrinks(old: Any, new: Sizes) -> bool:
    if isinstance(new, list):
        return isinstance(old, (list, tuple)) and len(old) == len(new) and all(map(_shrinks, old, new))
    return isinstance(old, int) and not isinstance(old, bool) and 0 < new <= old


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OptionError(f"plan: {place}: received {type(value).__name__}, expected a table of names.")
    return value


def _numbers(value: Any, place: str) -> list[int]:
    if not isinstance(value, list) or any(type(n) is not int or n < 0 or n >= 2**31 for n in value):
        raise OptionError(f"plan: {place}: expected a list of integers from 0.")
    return value


def _indices(value: Any, place: str) -> list[int]:
    numbers = _numbers(value, place)
    if not numbers or any(a >= b for a, b in pairwise(numbers)):
        raise OptionError(f"plan: {place}: expected at least one index, in rising order.")
    return numbers


def _size(value: Any, place: str) -> Sizes:
    return _numbers(value, place) if isinstance(value, list) else _numbers([value], place)[0]


def _dim(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) > 16:
        raise OptionError(f"plan: tensor {name!r}: {text!r} is no dimension; expected 0, 1, ...")
    return int(text)
