"""Attributes: the numbers in modules that say how wide a layer is, and what they become after a cut.

    layers of torch   in_channels, out_features, groups, num_features, normalized_shape, ... follow from the new weights
    own modules       a number may be in the code of the network (heads, split sizes). A candidate is an integer of a
                      module whose code made a call, equal to the old size of an axis of that call which shrinks;
                      surgery tries candidates and keeps what makes the cut network compute the right thing

Only attributes of modules themselves are candidates, never those of a configuration that modules share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .flow import Site
from .plan import Sizes

Shapes = Mapping[str, tuple[list[int], list[int]]]  # {name: (old shape, new shape)}


@dataclass(frozen=True, order=True)
class Kind:
    """What is tried as one: an attribute of a class."""

    doubtful: bool
    cls: str
    attribute: str


@dataclass(frozen=True)
class Edit:
    """One candidate: `kind` is the class and the attribute, alike for all modules of a class.

    A kind is doubtful if another axis of that size, in calls of the same module, does not shrink.
    """

    path: str
    attribute: str
    value: int | tuple[int, ...]
    kind: Kind

    @property
    def place(self) -> tuple[str, str]:
        return self.path, self.attribute


def of_layers(model: nn.Module, shapes: Shapes) -> dict[str, dict[str, Sizes]]:
    """New numbers of the layers of torch whose weights shrink."""
    changed: dict[str, dict[str, Sizes]] = {}
    for path, module in model.named_modules():
        old = {name: shapes[_join(path, name)][0] for name in _own(module) if _join(path, name) in shapes}
        new = {name: shapes[_join(path, name)][1] for name in old}
        values = _layer(module, old, new)
        values = {name: value for name, value in values.items() if _differs(getattr(module, name), value)}
        if values:
            changed[path] = values
    return changed


def candidates(model: nn.Module, sites: Iterable[Site], gone: Tensor, shapes: Shapes) -> list[Edit]:
    """Numbers of modules that may have to change. gone: bool [labels]."""
    modules = dict(model.named_modules(remove_duplicate=False))
    calls: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]], None] = {}
    for site in sites:
        old = tuple(len(rows) for rows in site.counts)
        new = tuple(int((~gone[rows]).any(1).sum()) for rows in site.counts)
        calls.setdefault((site.modules, old, new))
    for name, (before, after) in shapes.items():
        for size, left in zip(before, after, strict=True):
            calls.setdefault(((name.rpartition(".")[0],), (size,), (left,)))
    steady = {(stack[-1], old) for stack, old, new in calls if old == new}
    found: dict[tuple[str, str], set[int | tuple[int, ...]]] = {}
    doubtful: set[tuple[str, str]] = set()
    exact: set[tuple[str, str]] = set()  # lists that are the sizes of a split, all of them
    for stack, old, new in sorted(calls, key=lambda call: -len(call[1])):
        for path in reversed(stack if old != new else ()):
            hits = _holding(modules[path], old, new) if path in modules else {}
            for attribute, value in hits.items():
                if (path, attribute) not in exact or len(old) > 1:
                    found.setdefault((path, attribute), set()).add(value)
                if len(old) > 1:
                    exact.add((path, attribute))
                if (path, old) in steady:
                    doubtful.add((path, attribute))
            if hits or isinstance(modules.get(path), _KNOWN):
                break
    return [
        Edit(
            path,
            attribute,
            next(iter(values)),
            Kind(key in doubtful, type(modules[path]).__qualname__, attribute),
        )
        for key, values in found.items()
        for path, attribute in [key]
        if len(values) == 1
    ]


def certain(model: nn.Module, edit: Edit) -> bool:
    """Whether a candidate follows from the class of its module: a norm without weights."""
    return isinstance(model.get_submodule(edit.path), _KNOWN)


def _holding(
    module: nn.Module, old: tuple[int, ...], new: tuple[int, ...]
) -> dict[str, int | tuple[int, ...]]:
    """The attributes of a module that hold the old numbers, with the new ones in their place."""
    if isinstance(module, _KNOWN) and _own(module):
        return {}  # its weights say how wide it is
    hits: dict[str, int | tuple[int, ...]] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if type(value) is int and value == old[0] and len(old) == 1:
            hits[name] = new[0]
        elif isinstance(value, (list, tuple)) and all(type(n) is int for n in value):
            if tuple(value) == old:
                hits[name] = new
            elif len(old) == 1 and old[0] in value:  # channels stand before positions
                at = list(value).index(old[0])
                hits[name] = (*value[:at], new[0], *value[at + 1 :])
    return hits


_KNOWN = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.PReLU)


def _layer(module: nn.Module, old: Mapping[str, list[int]], new: Mapping[str, list[int]]) -> dict[str, Sizes]:
    shape = new.get("weight") or next(iter(new.values()), None)
    if shape is None:
        return {}
    if isinstance(module, _ConvNd) and "weight" in new:
        groups = module.groups * shape[0] // old["weight"][0] if module.groups > 1 else 1
        rows, columns = ("in_channels", "out_channels")[:: 1 if isinstance(module, _ConvTransposeNd) else -1]
        wide = shape[1] * groups
        return {rows: shape[0], columns: wide, "groups": groups}
    if isinstance(module, nn.Linear) and "weight" in new:
        return {"out_features": shape[0], "in_features": shape[1]}
    if isinstance(module, _NormBase):
        return {"num_features": shape[0]}
    if isinstance(module, nn.GroupNorm):
        before = next(iter(old.values()))[0]
        return {"num_channels": shape[0], "num_groups": module.num_groups * shape[0] // before}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": list(shape)}
    if isinstance(module, nn.Embedding):
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape[0]}
    return {}


def _own(module: nn.Module) -> list[str]:
    return [name for name, held in {**module._parameters, **module._buffers}.items() if held is not None]


def _differs(old: object, new: Sizes) -> bool:
    return (list(old) if isinstance(old, (list, tuple)) else old) != new


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
