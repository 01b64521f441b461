"""Formats on a model: attach, refine, bake, store, and the state that a run keeps between stages.

A format is attached as a torch parametrization: `module.weight` is `format.decode(*parts)` at every use, trained
parts are parameters of the module, fixed parts are buffers. Any optimizer and any loop therefore works. Names are
those of the plain model (`conv1.weight`), whatever torch calls the parts inside.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..artifact.stored import Stored
from ..errors import FormatError, nearest
from .base import Parts, WeightFormat


class Attached(nn.Module):
    """The parametrization that rebuilds one weight from the parts of its format."""

    def __init__(self, format: WeightFormat, parts: Parts | None = None) -> None:
        super().__init__()
        self.format = format
        self.trained: tuple[bool, ...] = ()
        self._given = parts

    def right_inverse(self, dense: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode `dense`: fixed parts become buffers here, trained parts are handed to torch."""
        parts = self.format.encode(dense) if self._given is None else self._given
        self._given = None
        self.trained = self.format.trained(*parts)
        for name, part, trained in zip(self.format.part_names(), parts, self.trained, strict=True):
            if not trained:
                self.register_buffer(name.replace(".", "_"), part.detach())
        floats = tuple(part for part, trained in zip(parts, self.trained, strict=True) if trained)
        if not floats:
            raise FormatError(f"{type(self.format).__name__} has no part that can be trained.")
        return floats[0] if len(floats) == 1 else floats

    def merge(self, *floats: Tensor) -> Parts:
        """All parts in order, from the trained ones and the buffers."""
        given = iter(floats)
        names = self.format.part_names()
        return tuple(
            next(given) if trained else getattr(self, name.replace(".", "_"))
            for name, trained in zip(names, self.trained, strict=True)
        )

    def forward(self, *floats: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # who follows the calls of a network sees its own, not these
            decode = self.format.decode_training if self.training else self.format.decode
            return decode(*self.merge(*floats))


def attach(module: nn.Module, name: str, format: WeightFormat, parts: Parts | None = None) -> None:
    """Represent `module.name` in `format`, encoding its present value (or taking `parts` as they are)."""
    if parametrize.is_parametrized(module, name):
        raise FormatError(
            f"{type(module).__name__}.{name} already has a format; refine it, or detach it first."
        )
    _own_class(module)
    parametrize.register_parametrization(module, name, Attached(format, parts), unsafe=True)


def detach(module: nn.Module, name: str) -> None:
    """Turn the weight back into a plain parameter with its decoded value."""
    value = getattr(module, name).detach().clone()
    _own_class(module)
    delattr(type(module), name)
    holders = _holders(module)
    del holders[name]
    if not len(holders):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    module.register_parameter(name, nn.Parameter(value))
    _restore_order(module)


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: torch puts the properties on the class, which a deep copy shares."""
    if parametrize.is_parametrized(module):
        cls = type(module)
        body = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(cls.__name__, cls.__bases__, body)


def _restore_order(module: nn.Module) -> None:
    """Put a weight before its bias again, as in the module's constructor."""
    names = sorted(module._parameters, key=lambda n: (n == "bias", n != "weight"))
    module._parameters = {n: module._parameters[n] for n in names}


def attached(model: nn.Module) -> dict[str, Attached]:
    """Every weight with a format, by its plain name, in the model's order."""
    return {_join(path, name): _entry(module, name) for path, module, name in _formatted(model)}


def parts_of(model: nn.Module, name: str) -> Parts:
    """The present parts of a weight that carries a format."""
    module, leaf = locate(model, name)
    holder = _holders(module)[leaf]
    return _entry(module, leaf).merge(*_originals(holder))


def refine(model: nn.Module, name: str, inner: WeightFormat) -> None:
    """Put `inner` at the dense leaves of the weight's format, or attach it where there is none."""
    module, leaf = locate(model, name)
    if not parametrize.is_parametrized(module, leaf):
        twins = [
            n
            for n, p in model.named_parameters(remove_duplicate=False)
            if p is getattr(module, leaf) and n != name
        ]
        if twins:
            raise FormatError(
                f"{name} shares its memory with {twins[0]}; a format would tear them apart. Skip both, or untie them first."
            )
        attach(module, leaf, inner)
        return
    old = _entry(module, leaf).format
    with torch.no_grad():
        parts = old.refine_parts(inner, *parts_of(model, name))
    new = old.refine(inner)
    detach(module, leaf)
    attach(module, leaf, new, parts)


def locate(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns the parameter `name`, and the parameter's own name."""
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        known = [n for n, _ in model.named_modules()]
        raise FormatError(f"The model has no module {path!r}. {nearest(path, known)}") from None
    if not isinstance(getattr(module, leaf, None), Tensor):
        raise FormatError(f"{type(module).__name__} at {path!r} has no parameter {leaf!r}.")
    return module, leaf


def plain_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Every weight and bias by its plain name: the parameter, or the decoded value where a format is attached."""
    values: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if ".parametrizations" in f".{path}":
            continue
        names = list(module._parameters)
        if parametrize.is_parametrized(module):
            names += list(_holders(module))
        for name in names:
            value = getattr(module, name)
            if value is not None:
                values[_join(path, name)] = value
    return values


def stored(model: nn.Module) -> dict[str, Stored]:
    """What the file keeps of every weight that carries a format, by plain name."""
    with torch.no_grad():
        return {name: entry.format.store(*parts_of(model, name)) for name, entry in attached(model).items()}


def baked(model: nn.Module) -> nn.Module:
    """A copy without formats: the decoded values as plain parameters; all other tensors are shared."""
    tensors = [*model.parameters(), *model.buffers()]
    clone = copy.deepcopy(model, {id(t): t for t in tensors})
    for _, module, name in list(_formatted(clone)):
        with torch.no_grad():
            detach(module, name)
    return clone


def state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and format trees: all that `restore` needs beside the plain model."""
    trees = {name: entry.format.to_dict() for name, entry in attached(model).items()}
    return {key: value.detach() for key, value in model.state_dict().items()}, trees


def restore(model: nn.Module, tensors: dict[str, Tensor], formats: dict[str, WeightFormat]) -> nn.Module:
    """Attach `formats` (by plain name) to the plain model, in place, and load all tensors."""
    for name, format in formats.items():
        module, leaf = locate(model, name)
        path = name.rpartition(".")[0]
        prefix = _join(path, f"parametrizations.{leaf}")
        floats = [tensors[k] for k in _ordered(tensors, prefix)]
        buffers = {
            k.removeprefix(f"{prefix}.0."): v for k, v in tensors.items() if k.startswith(f"{prefix}.0.")
        }
        given = iter(floats)
        parts = tuple(
            buffers[part.replace(".", "_")] if part.replace(".", "_") in buffers else next(given)
            for part in format.part_names()
        )
        attach(module, leaf, format, parts)
    model.load_state_dict(tensors)
    return model


def _formatted(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for name, holder in _holders(module).items():
                if isinstance(holder[0], Attached):
                    yield path, module, name


def _holders(module: nn.Module) -> Any:
    """The ModuleDict in which torch keeps the parametrizations of a module, by parameter name."""
    return module.parametrizations


def _entry(module: nn.Module, name: str) -> Attached:
    entry = _holders(module)[name][0]
    assert isinstance(entry, Attached)
    return entry


def _originals(holder: Any) -> Parts:
    if hasattr(holder, "original"):
        return (holder.original,)
    return tuple(getattr(holder, f"original{i}") for i in range(holder.ntensors))


def _ordered(tensors: dict[str, Tensor], prefix: str) -> list[str]:
    if f"{prefix}.original" in tensors:
        return [f"{prefix}.original"]
    numbered = [k for k in tensors if k.startswith(f"{prefix}.original")]
    return sorted(numbered, key=lambda key: int(key.rsplit("original", 1)[1]))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
