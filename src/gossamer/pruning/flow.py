"""Flow: how labels travel. A value is a shape and factors; each factor says, per index, which unit must stay for it.

Value      shape [n_0 .. n_k], factors f: int64 labels, size 1 along axes on which they do not depend
           an element exists while all its labels exist; factors of one value share no axis
           an axis of size > 1 without factor is fixed; an axis along which a tensor is constant (expand, zeros) has
           labels of its own, so that whatever meets it there shrinks with it
axes(f)    the axes along which a factor varies; two or more = a grid (heads x dims), which must stay rectangular

settle     labels of tied units become equal, so factors shrink; a factor that only says "stays" vanishes
fix        an axis that cannot shrink: what varies along it is tied; a factor along it alone stays (a wall)
combine    element by element after broadcasting: factors over the same axes are tied; where one operand is fixed the
           others are fixed too; an axis of size 1 passes nothing
contract   a product summed over axes = combine, then the sum: where a weight is an operand, its columns read the
           channels and the factor ends there; a product of two activations fixes the axes that it sums over
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .group import IN, OUT, Wall
from .labels import MADE, STAYS, Labels


@dataclass(frozen=True)
class Value:
    """Labels of one tensor; `origin`: the parameters it was computed from, if from nothing else."""

    shape: tuple[int, ...]
    factors: tuple[Tensor, ...] = ()
    origin: frozenset[str] = frozenset()

    def covered(self) -> set[int]:
        """The axes that a factor varies along."""
        return {axis for factor in self.factors for axis in axes(factor)}

    def fixed(self) -> set[int]:
        """The axes that cannot shrink."""
        covered = self.covered()
        return {a for a, n in enumerate(self.shape) if n > 1 and a not in covered}

    def along(self, axis: int) -> Tensor:
        """The factor of this value that varies along `axis`; a zero of one element per axis if there is none."""
        for factor in self.factors:
            if factor.shape[axis] > 1:
                return factor
        return torch.zeros([1] * len(self.shape), dtype=torch.int64)


def axes(factor: Tensor) -> list[int]:
    return [axis for axis, size in enumerate(factor.shape) if size > 1]


def squeezed(factor: Tensor) -> Tensor:
    """Size 1 along every axis on which the labels do not depend."""
    for axis in axes(factor):
        first = factor.narrow(axis, 0, 1)
        if bool((factor == first).all()):
            factor = first
    return factor


@dataclass(frozen=True)
class Site:
    """Counts that may be written in the code: the modules that run, and for each count labels [count, ..].

    A row is there while any of its labels is. Several counts are the sizes of a split.
    """

    modules: tuple[str, ...]
    counts: tuple[Tensor, ...]


@dataclass
class Flow:
    """What the walk through one graph gathers."""

    labels: Labels = field(default_factory=Labels)
    dims: dict[tuple[str, int], Tensor] = field(
        default_factory=dict
    )  # the labels of each dimension of a weight
    roles: dict[tuple[str, int], str] = field(default_factory=dict)
    walls: dict[Wall, None] = field(default_factory=dict)
    grids: list[Tensor] = field(default_factory=list)  # label arrays that must stay rectangular
    sites: list[Site] = field(default_factory=list)
    through_norms: bool = False
    inexact: bool = False  # a normalization over cut channels: its statistics change
    operator: str = ""
    stack: tuple[str, ...] = ("",)  # the modules whose code is running, outermost first

    @property
    def layer(self) -> str:
        return self.stack[-1]

    def site(self, axis: int, *factors: Tensor) -> None:
        """Numbers in the code may be the sizes of this axis; an index of it goes with all its labels."""
        lines = [factor.movedim(axis, 0) for factor in factors]
        self.sites.append(Site(self.stack, tuple(rows.reshape(len(rows), -1) for rows in lines)))

    def settle(self, value: Value) -> Value:
        factors = []
        for factor in value.factors:
            shrunk = squeezed(self.labels.find(factor))
            if not bool(self.labels.has(shrunk, STAYS).all()):
                factors.append(shrunk)
        return replace(value, factors=tuple(factors))

    def wall(self, labels: Tensor, reason: str) -> None:
        """These units stay; recorded where they were channels that could have gone."""
        live = ~self.labels.has(labels, STAYS) & self.labels.has(labels, MADE)
        if reason and bool(live.any()):
            self.walls.setdefault(Wall(self.operator, self.layer, reason))
        self.labels.keep(labels)

    def fix(self, value: Value, fixed: Iterable[int], reason: str) -> Value:
        """`value` with axes that cannot shrink."""
        fixed = set(fixed)
        value = self.settle(value)
        for factor in value.factors:
            inside = [axis for axis in axes(factor) if axis in fixed]
            if len(inside) == len(axes(factor)) and inside:
                self.wall(factor, reason)
            else:
                first = factor
                for axis in inside:
                    first = first.narrow(axis, 0, 1)
                self.labels.tie(factor, first)
        return self.settle(value)

    def constant(self, value: Value, constant: Iterable[int]) -> Value:
        """`value` with labels of its own along axes on which it does not depend."""
        new = []
        for axis in constant:
            if value.shape[axis] > 1:
                sizes = [n if at == axis else 1 for at, n in enumerate(value.shape)]
                new.append(self.labels.fresh(value.shape[axis]).reshape(sizes))
        return replace(value, factors=(*value.factors, *new))

    def stop(self, value: Value, reason: str) -> None:
        """Nothing of this value may shrink."""
        for factor in value.factors:
            self.wall(factor, reason)

    def combine(self, values: Sequence[Value], reason: str = "") -> Value:
        """The value of an operator that works element by element on broadcast operands."""
        rank = max((len(value.shape) for value in values), default=0)
        operands = [lifted(value, rank) for value in values]
        shape = tuple(max(column) for column in zip(*(v.shape for v in operands), strict=True))
        why = reason or "an operand that cannot shrink meets these channels"
        while True:
            operands = [self.settle(value) for value in operands]
            if not self._fix_to_others(operands, why) and not self._tie_overlapping(operands):
                break
        factors: list[Tensor] = []
        for factor in (factor for value in operands for factor in value.factors):
            if not any(self.same(factor, other) for other in factors):
                factors.append(factor)
        known = [value.origin for value in operands if value.shape and max(value.shape) > 1]
        origin = frozenset[str]().union(*known) if all(known) else frozenset()
        return self.disjoint(Value(shape, tuple(factors), origin))

    def _fix_to_others(self, operands: list[Value], reason: str) -> bool:
        """Fix every factor along the axes that another operand keeps; True if anything changed."""
        for at, value in enumerate(operands):
            others = [other for index, other in enumerate(operands) if index != at]
            fixed = {axis for other in others for axis in other.fixed()} & value.covered()
            if fixed:
                operands[at] = self.fix(value, fixed, reason)
                return True
            lone = [f for f in value.factors if not axes(f)]
            for other in others:
                if lone and not any(not axes(f) for f in other.factors) and max(other.shape, default=1) > 1:
                    self.wall(lone[0], reason)
                    return True
        return False

    def _tie_overlapping(self, operands: list[Value]) -> bool:
        factors = [factor for value in operands for factor in value.factors]
        for index, first in enumerate(factors):
            for second in factors[index + 1 :]:
                shared = set(axes(first)) & set(axes(second))
                if (not shared and (axes(first) or axes(second))) or self.same(first, second):
                    continue
                small, big = sorted((first, second), key=lambda factor: len(axes(factor)))
                more = set(axes(big)) - set(axes(small))
                if more and max(more) < min(shared) and not bool(self.labels.has(small, MADE).any()):
                    self.labels.keep(small)  # a scale per entry of a head: whole heads go
                else:
                    self.labels.tie(first, second)
                return True
        return False

    def same(self, first: Tensor, second: Tensor) -> bool:
        """Whether two factors name the same units, wherever they can go at all."""
        if set(axes(first)) - set(axes(second)) and set(axes(second)) - set(axes(first)):
            return False
        return bool((self.labels.canon(first) == self.labels.canon(second)).all())

    def disjoint(self, value: Value) -> Value:
        """Where two factors share an axis (after a reshape), the one made by no layer, else the later one, stays."""
        order = sorted(value.factors, key=lambda f: not bool(self.labels.has(f, MADE).any()))
        taken: set[int] = set()
        kept = []
        for factor in order:
            if taken & set(axes(factor)):
                self.wall(factor, "one axis is made of two that would shrink separately")
                continue
            taken |= set(axes(factor))
            kept.append(factor)
        return replace(value, factors=tuple(kept))

    def contract(self, left: Value, right: Value, equation: tuple[str, str, str], reason: str = "") -> Value:
        """An einsum of two operands, one character per axis; axes of size 1 are broadcast."""
        a, b, out = equation
        letters = [*out, *(c for c in dict.fromkeys(a + b) if c not in out)]
        summed = set(range(len(out), len(letters)))
        weight = next((v for v in (right, left) if v.origin), None)
        sides = [spread(v, term, letters) for v, term in ((left, a), (right, b))]
        if weight is None:
            why = "a product of two activations sums over these channels"
            sides = [self.fix(side, summed, reason or why) for side in sides]
        else:
            self._mark_roles(weight, b if weight is right else a, out)
        whole = self.combine(sides, reason)
        factors = []
        for factor in whole.factors:
            inside = set(axes(factor)) & summed
            if inside and inside == set(axes(factor)) and weight is not None:
                continue  # read by the columns of the weight, and gone
            if inside:
                part = self.fix(replace(whole, factors=(factor,)), inside, reason)
                factors += list(part.factors)
            else:
                factors.append(factor)
        kept = tuple(self.settle(replace(whole, factors=tuple(factors))).factors)
        flat = tuple(
            factor.reshape(factor.shape[: len(out)]) for factor in kept if not set(axes(factor)) & summed
        )
        origin = left.origin | right.origin if left.origin and right.origin else frozenset()
        return Value(whole.shape[: len(out)], flat, origin)

    def _mark_roles(self, weight: Value, term: str, out: str) -> None:
        for axis, letter in enumerate(term):
            self.play(weight, axis, OUT if letter in out else IN)

    def play(self, weight: Value, axis: int, role: str) -> None:
        """Note the role of the dimensions of the parameters behind one axis of a weight."""
        wanted = weight.along(axis).flatten()
        wanted = wanted[wanted > 0]
        if not wanted.numel():
            return
        keys = [key for key in self.dims if key[0] in weight.origin]
        exact = [key for key in keys if bool(torch.isin(wanted, self.dims[key]).any())]
        if not exact:  # a weight that was computed from parameters
            roots = self.labels.find(wanted)
            near = [key for key in keys if bool(torch.isin(roots, self.labels.find(self.dims[key])).any())]
            exact = [key for key in near if key not in self.roles]
        for key in exact:
            if self.roles.get(key) != IN:
                self.roles[key] = role
            if role == OUT:
                self.labels.mark(self.dims[key], MADE)


def lifted(value: Value, rank: int) -> Value:
    """The same value with leading axes of size 1."""
    more = rank - len(value.shape)
    if not more:
        return value
    factors = tuple(factor.reshape([1] * more + list(factor.shape)) for factor in value.factors)
    return replace(value, shape=(1,) * more + value.shape, factors=factors)


def spread(value: Value, term: str, letters: Sequence[str]) -> Value:
    """The value with its axes at the places of their letters; size 1 elsewhere."""
    places = {letters.index(letter): axis for axis, letter in enumerate(term)}
    shape = tuple(value.shape[places[at]] if at in places else 1 for at in range(len(letters)))
    order = [places[at] for at in sorted(places)]

    def move(factor: Tensor) -> Tensor:
        moved = factor.permute(order)
        return moved.reshape([factor.shape[places[at]] if at in places else 1 for at in range(len(letters))])

    return replace(value, shape=shape, factors=tuple(map(move, value.factors)))


def each(value: Value, function: Callable[[Tensor], Tensor], **changes: Any) -> Value:
    """The value with every factor moved by `function`."""
    return replace(value, factors=tuple(function(factor) for factor in value.factors), **changes)
