"""WeightFormat: a weight is a few small tensors and the rule that rebuilds it.

    encode(dense)   -> parts     train: floating parts are trained, integer parts are fixed
    decode(*parts)  -> dense
    store(*parts)   -> Stored    store and run: `layout` names the torch-free rule of artifact.layouts
    refine(inner)   -> format    compose: put `inner` where this format still holds a Dense leaf

A format is an immutable tree, `Sparse(values=Codebook(bits=5))`: options plus inner formats, no tensors. The parts of
a tree are flat: its own parts first, then those of its inner formats in order, named `mask`, `values.codes`,
`values.centroids`. `to_dict` / `from_dict` write the tree as data, so that no state needs pickle.

The contract, tested for every exported format: gradients reach every trained part; decoding the stored fields
with numpy gives exactly the weight that was trained.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..errors import FormatError, OptionError, nearest

Parts = tuple[Tensor, ...]


class Learning(NamedTuple):
    """How an optimizer treats a trained tensor: a factor on the learning rate, and whether weight decay acts on it."""

    rate: float = 1.0
    decay: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """Base of every format; see the module's docstring for the contract."""

    layout: ClassVar[str]
    own_parts: ClassVar[tuple[str, ...]]
    fixed_parts: ClassVar[tuple[str, ...]] = ()  # own floating parts that are not trained
    int8_bits: ClassVar[int] = 8  # the most bits whose codes an integer of 8 bits holds

    def encode(self, dense: Tensor) -> Parts:
        """The parts that represent `dense` (any shape) as well as this format can."""
        raise NotImplementedError

    def decode(self, *parts: Tensor) -> Tensor:
        """The dense weight, differentiable in every trained part."""
        raise NotImplementedError

    def decode_training(self, *parts: Tensor) -> Tensor:
        """The weight while the module trains; another than `decode` gives only for formats that draw it at random."""
        return self.decode(*parts)

    def store(self, *parts: Tensor) -> Stored:
        """The fields a file keeps; rebuilding them gives `decode(*parts)` bit for bit."""
        raise NotImplementedError

    def refine(self, inner: WeightFormat) -> Self:
        """This format with `inner` at its dense leaves."""
        leaves = self.inner()
        if not leaves:
            raise FormatError(
                f"{type(self).__name__} holds no dense values that {type(inner).__name__} could refine. "
                "Put the refining step before it, or leave it out for these layers."
            )
        return dataclasses.replace(self, **{name: leaf.refine(inner) for name, leaf in leaves.items()})

    def refine_parts(self, inner: WeightFormat, *parts: Tensor) -> Parts:
        """The parts of `self.refine(inner)` from the parts of `self`; own parts are kept as they are."""
        own, below = self.split(*parts)
        refined = [leaf.refine_parts(inner, *below[name]) for name, leaf in self.inner().items()]
        return (*own, *(part for group in refined for part in group))

    def inner(self) -> dict[str, WeightFormat]:
        """The inner formats, in the order of their parts."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, WeightFormat)}

    def part_names(self) -> tuple[str, ...]:
        """Flat names of all parts: `mask`, `values.codes`, ..."""
        below = [f"{name}.{part}" for name, leaf in self.inner().items() for part in leaf.part_names()]
        return (*self.own_parts, *below)

    def fixed(self) -> set[str]:
        """Own floating parts that are not trained."""
        return set(self.fixed_parts)

    def learning(self) -> dict[str, Learning]:
        """Own trained parts that are not weights, and how they learn; all others learn as weights do."""
        return {}

    def limits(self, *parts: Tensor) -> dict[str, float]:
        """{own trained part: the magnitude it is clipped to after each optimizer step} (training.ClipLatent)."""
        return {}

    def trained(self, *parts: Tensor) -> tuple[bool, ...]:
        """Which parts an optimizer trains: the floating ones that are not declared fixed."""
        own, below = self.split(*parts)
        fixed = self.fixed()
        flags = [p.is_floating_point() and n not in fixed for n, p in zip(self.own_parts, own, strict=True)]
        return (*flags, *(flag for name, leaf in self.inner().items() for flag in leaf.trained(*below[name])))

    def all_learning(self) -> tuple[Learning, ...]:
        """How each part learns if it is trained, in the order of `part_names`."""
        own = self.learning()
        below = (kind for leaf in self.inner().values() for kind in leaf.all_learning())
        return (*(own.get(name, Learning()) for name in self.own_parts), *below)

    def split(self, *parts: Tensor) -> tuple[Parts, dict[str, Parts]]:
        """Own parts, and the parts of each inner format."""
        start = len(self.own_parts)
        own, below = parts[:start], {}
        for name, leaf in self.inner().items():
            stop = start + len(leaf.part_names())
            below[name] = parts[start:stop]
            start = stop
        if start != len(parts):
            raise FormatError(f"{type(self).__name__}: {len(parts)} parts received, {start} expected.")
        return own, below

    def to_dict(self) -> dict[str, Any]:
        """`{"Sparse": {"values": {"Codebook": {"bits": 5}}}}`: the tree as data, defaults left out."""
        options: dict[str, Any] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, WeightFormat):
                options[f.name] = value.to_dict()
            elif value != f.default:
                options[f.name] = value
        return {type(self).__name__: options}


def from_dict(tree: dict[str, Any], namespace: dict[str, type[WeightFormat]]) -> WeightFormat:
    """The format that `to_dict` wrote; `namespace` maps the exported names to their classes."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise OptionError(f"A format is written {{Name: {{options}}}}, but received {tree!r}.")
    [(name, options)] = tree.items()
    if name not in namespace:
        raise OptionError(f"Unknown format {name!r}. {nearest(name, namespace)}")
    cls = namespace[name]
    known = {f.name for f in dataclasses.fields(cls)}
    for option in options or {}:
        if option not in known:
            raise OptionError(f"{name} has no option {option!r}. {nearest(option, known)}")
    values = {
        key: from_dict(value, namespace) if isinstance(value, dict) else value
        for key, value in (options or {}).items()
    }
    return cls(**values)


def check_finite(dense: Tensor, name: str) -> None:
    """Raise FormatError when a weight holds NaN or infinity."""
    if not bool(torch.isfinite(dense).all()):
        bad = int((~torch.isfinite(dense)).sum())
        raise FormatError(
            f"{name}: {bad} of {dense.numel()} weights are NaN or infinite. "
            "Train again from the last good checkpoint, or repair the weights first."
        )
