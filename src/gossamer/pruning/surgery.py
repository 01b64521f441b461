"""Surgery: a choice of units -> a smaller ordinary network, and the plan that repeats it.

    cut(model, choice, groups)      a copy without the units that the choice drops
    masked(model, choice, groups)   the model itself, with zeros in the columns (role "in") that read those units

Both compute the same function (where no normalization runs over what was cut); `cut` proves it on the example of the
groups, to 1e-4 of the largest output, before it returns. Numbers in the code of a network (heads, split sizes) are
attributes of its modules: they are changed where that makes the proof succeed. A group that fails it stays whole.

Raises: OptionError for a choice that cannot be right; StepError when nothing is cut. The model given is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError, StepError, nearest
from ..methods.layer_inputs import evaluating
from .attributes import Edit, Kind, candidates, certain, of_layers
from .group import IN, Choice
from .groups import Groups
from .plan import Plan, kept_part, named_tensors
from .trace import arguments, tensors_of

TOLERANCE = 1e-4


def cut(
    model: nn.Module, choice: Choice, groups: Groups, *, optimizer: torch.optim.Optimizer | None = None
) -> tuple[nn.Module, Plan]:
    """A copy of `model` without the units whose entry in `choice` is False, and the plan.

    optimizer: its momenta are cut alike and its parameter groups then hold the new parameters.
    `plan.walls` names groups that stayed whole because the code of the network fixes their width.
    """
    chosen = checked(choice, groups)
    smaller, plan = _Trial(model, groups, chosen).best()
    if optimizer is not None:
        _cut_optimizer(optimizer, model, smaller, plan)
    return smaller, plan


@contextmanager
def masked(model: nn.Module, choice: Choice, groups: Groups) -> Iterator[nn.Module]:
    """`model` with zeros where removed units are read; every weight is afterwards exactly as before."""
    chosen = checked(choice, groups)
    tensors = named_tensors(model)
    saved: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for group in groups:
                for member in group.of(IN):
                    gone = _gone(member.units, chosen.get(group.name))
                    if not bool(gone.any()):
                        continue
                    weight = tensors[member.name]
                    saved.setdefault(member.name, weight.detach().clone())
                    weight.index_fill_(member.dim, gone.nonzero().flatten().to(weight.device), 0)
        yield model
    finally:
        with torch.no_grad():
            for name, weight in saved.items():
                tensors[name].copy_(weight)


def checked(choice: Choice, groups: Groups) -> dict[str, Tensor]:
    """The choice for the groups that lose units; every mistake is named."""
    known = {group.name: group for group in groups}
    chosen: dict[str, Tensor] = {}
    for name, keep in choice.items():
        if name not in known:
            raise OptionError(f"choice: the network has no group {name!r}. {nearest(name, known)}")
        group = known[name]
        if not isinstance(keep, Tensor) or keep.dtype != torch.bool or keep.shape != (group.size,):
            given = f"{keep.dtype} {list(keep.shape)}" if isinstance(keep, Tensor) else type(keep).__name__
            raise OptionError(f"choice of {name!r}: received {given}, expected torch.bool [{group.size}].")
        keep = keep.cpu()
        stuck = (~keep & ~group.removable).nonzero().flatten().tolist()
        if stuck:
            raise OptionError(
                f"choice of {name!r}: units {stuck[:8]} cannot go, because they reach something that cannot shrink. "
                "Drop only units whose entry in group.removable is True."
            )
        if not bool(keep.any()):
            raise OptionError(f"choice of {name!r}: no unit of {group.size} would stay. Keep at least one.")
        if not bool(keep.all()):
            chosen[name] = keep
    return chosen


@dataclass(frozen=True)
class _Trial:
    """Tries a choice, with or without candidates among the attributes, against the masked original."""

    model: nn.Module
    groups: Groups
    chosen: dict[str, Tensor]

    def best(self) -> tuple[nn.Module, Plan]:
        if not self.chosen:
            raise StepError("cut: the choice keeps every unit, so nothing is cut. Drop at least one unit.")
        edits = self.edits()
        fitting = self.fitting(edits, _guesses(edits)[:3])
        if fitting is not None:
            return self.done(fitting)
        return self.by_group()

    def by_group(self) -> tuple[nn.Module, Plan]:
        """Each group alone decides which attributes must follow; those that never fit stay whole."""
        good: dict[str, set[tuple[str, str]]] = {}
        walls: dict[str, str] = {}
        known: set[Kind] = set()
        for name, keep in self.chosen.items():
            alone = replace(self, chosen={name: keep})
            edits = alone.edits()
            fitting = alone.fitting(edits, [[e for e in edits if e.kind in known], *_guesses(edits)])
            if fitting is None:
                walls[name] = f"the code of {self.place(name)} fixes this width"
            else:
                good[name] = {edit.place for edit in fitting}
                known |= {edit.kind for edit in fitting}
        while good:
            rest = replace(self, chosen={name: self.chosen[name] for name in good})
            places = set[tuple[str, str]]().union(*good.values())
            edits = [edit for edit in rest.edits() if edit.place in places]
            if rest.agrees(edits):
                smaller, plan = rest.done(edits)
                return smaller, replace(plan, walls=walls)
            name, _ = good.popitem()
            walls[name] = f"together with other groups it does not fit the code of {self.place(name)}"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(walls.items())[:5])
        raise StepError(f"cut: nothing could be cut. {reasons}.")

    def fitting(self, edits: list[Edit], guesses: Sequence[list[Edit]]) -> list[Edit] | None:
        """The first guess that works, without the kinds of edits that it does not need."""
        tried: list[list[Edit]] = []
        for guess in guesses:
            if guess in tried:
                continue
            tried.append(guess)
            if self.agrees(guess):
                for kind in {edit.kind for edit in guess}:
                    fewer = [edit for edit in guess if edit.kind != kind]
                    guess = fewer if self.agrees(fewer) else guess
                return guess
        return None

    def done(self, edits: list[Edit]) -> tuple[nn.Module, Plan]:
        plan = self.plan(edits)
        return plan.apply(self.model), plan

    def place(self, name: str) -> str:
        return name.rpartition(".")[0] or type(self.model).__name__

    def plan(self, edits: Sequence[Edit]) -> Plan:
        tensors = self.kept()
        attributes = of_layers(self.model, self.shapes(tensors))
        for edit in [*edits, *(edit for edit in self.edits() if certain(self.model, edit))]:
            value = list(edit.value) if isinstance(edit.value, tuple) else edit.value
            attributes.setdefault(edit.path, {})[edit.attribute] = value
        return Plan(
            {name: keep.nonzero().flatten().tolist() for name, keep in self.chosen.items()},
            tensors,
            attributes,
            {name: list(named_tensors(self.model)[name].shape) for name in tensors},
        )

    def edits(self) -> list[Edit]:
        units = self.groups.units
        gone = torch.zeros(len(units), dtype=torch.bool)
        for at, group in enumerate(self.groups):
            if group.name in self.chosen:
                own = units[:, 0] == at
                gone[own] = ~self.chosen[group.name][units[own, 1]]
        return candidates(self.model, self.groups.sites, gone, self.shapes(self.kept()))

    def kept(self) -> dict[str, dict[int, list[int]]]:
        masks: dict[tuple[str, int], Tensor] = {}
        for group in self.groups:
            keep = self.chosen.get(group.name)
            for member in group.members if keep is not None else ():
                stay = ~_gone(member.units, keep)
                masks[member.name, member.dim] = masks.get((member.name, member.dim), stay) & stay
        tensors: dict[str, dict[int, list[int]]] = {}
        for (name, dim), mask in masks.items():
            if not bool(mask.any()):
                raise OptionError(
                    f"choice: nothing of {name} (dimension {dim}) would stay. Keep at least one unit."
                )
            if not bool(mask.all()):
                tensors.setdefault(name, {})[dim] = mask.nonzero().flatten().tolist()
        return tensors

    def shapes(self, tensors: dict[str, dict[int, list[int]]]) -> dict[str, tuple[list[int], list[int]]]:
        """Old and new shapes, under all names of tied tensors."""
        known = named_tensors(self.model)
        found = {}
        for name, first in self.groups.aliases.items():
            if first in tensors:
                old = list(known[name].shape)
                new = [len(tensors[first].get(dim, range(size))) for dim, size in enumerate(old)]
                found[name] = (old, new)
        return found

    def agrees(self, edits: Sequence[Edit]) -> bool:
        """Whether the network cut so computes what the masked original does."""
        smaller = self.plan(edits).apply(self.model, share=True)
        expected = self.expected()
        try:
            received = _outputs(smaller, self.groups.example)
        except Exception:  # a network whose code fixes a width may raise anything
            return False
        if [t.shape for t in received] != [t.shape for t in expected]:
            return False
        return not self.groups.exact or all(map(_close, received, expected))

    def expected(self) -> list[Tensor]:
        with masked(self.model, self.chosen, self.groups):
            return _outputs(self.model, self.groups.example)


def _gone(units: Tensor, keep: Tensor | None) -> Tensor:
    """bool, of the shape of `units`: indices of units that go."""
    if keep is None:
        return torch.zeros_like(units, dtype=torch.bool)
    return (units >= 0) & ~keep[units.clamp_min(0)]


def _guesses(edits: list[Edit], most: int = 64) -> list[list[Edit]]:
    """None, those beyond doubt, all, then fewer and fewer kinds."""
    kinds = sorted({edit.kind for edit in edits})
    sets = [set(chosen) for size in range(len(kinds) - 1, 0, -1) for chosen in combinations(kinds, size)]
    sure = {kind for kind in kinds if not kind.doubtful}
    return [[e for e in edits if e.kind in chosen] for chosen in [set(), sure, set(kinds), *sets][:most]]


def _outputs(model: nn.Module, example: Any) -> list[Tensor]:
    args, kwargs = arguments(_probing(example))
    with evaluating(model):
        return tensors_of(model(*args, **kwargs))


def _probing(example: Any) -> Any:
    """The example, with noise in the place of inputs that are the same everywhere."""
    generator = torch.Generator().manual_seed(0)

    def fill(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() < 2:
            return value
        if bool((value != value.flatten()[0]).any()):
            return value
        return torch.randn(value.shape, generator=generator).to(value)

    return torch.utils._pytree.tree_map(fill, example)


def _close(received: Tensor, expected: Tensor) -> bool:
    if not expected.is_floating_point():
        return torch.equal(received, expected)
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 1.0
    return torch.allclose(
        received, expected, rtol=TOLERANCE, atol=TOLERANCE * max(scale, 1e-12), equal_nan=True
    )


def _cut_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, smaller: nn.Module, plan: Plan
) -> None:
    """Point the optimizer to the parameters of the smaller network, and cut what it remembers of each."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    after = dict(smaller.named_parameters())
    for group in optimizer.param_groups:
        for at, old in enumerate(group["params"]):
            name = names.get(id(old))
            if name is None:
                continue
            dims = plan.tensors.get(name, {})
            state = optimizer.state.pop(old, None)
            group["params"][at] = after[name]
            if state is not None:
                optimizer.state[after[name]] = {
                    key: kept_part(value, dims)
                    if isinstance(value, Tensor) and value.shape == old.shape
                    else value
                    for key, value in state.items()
                }
