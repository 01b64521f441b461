"""Groups: which channels of a network can only go together, found by carrying a label per channel through its graph.

    1. every dimension of every weight gets fresh labels; the graph is walked once in the order it runs (walk), and each
       operator moves, ties or stops labels (operators/)
    2. where an axis was split (heads x dims, parts x channels), what remains must be a full grid again: classes that are
       neither whole rows nor whole columns are tied column by column, until nothing changes
    3. classes of labels are units; units that share the output axis of a layer are one group, named after that layer

No rule joins two operators, so flatten -> linear, channel shuffle, fused q/k/v or a shared module need none of their own.
Linear in the size of the graph. Raises: ModelError when the model cannot be traced, or the time is over.
Source: the groups are those of Fang et al., "DepGraph", CVPR 2023, arXiv:2301.12900, section 3; labels instead of a
dependency matrix are our choice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .flow import Flow, Site, axes, squeezed
from .group import OUT, WITH, Group, Member, Wall
from .labels import MADE, STAYS, Labels
from .trace import trace
from .walk import Walk


@dataclass(frozen=True)
class Groups(Sequence[Group]):
    """Groups with at least one removable unit, in the order in which their first layers run, and the walls."""

    groups: tuple[Group, ...]
    walls: tuple[Wall, ...]
    example: Any
    aliases: dict[str, str]
    sites: tuple[Site, ...]
    units: Tensor  # int64 [labels, 2]: group and unit of each label, -1 for none
    exact: bool  # False where a normalization over cut channels was allowed

    def __getitem__(self, at: Any) -> Any:
        return self.named(at) if isinstance(at, str) else self.groups[at]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def named(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)


def find_groups(
    model: nn.Module, example: Any, *, through_norms: bool = False, seconds: float = 60.0
) -> Groups:
    """The groups of `model`, traced on `example` (a tensor, a tuple of arguments, or a dict of keyword arguments).

    through_norms: layer norms and RMS norms may lose channels, so a whole residual stream can; the statistics change.
    """
    deadline = time.thread_time() + seconds
    traced = trace(model, example)
    flow = Flow(through_norms=through_norms)
    walk = Walk(flow, traced, deadline)
    walk.run()
    _make_rectangular(flow, deadline)
    groups, units = _assemble(flow, walk.order)
    units = units[flow.labels.find(_all(flow))]
    sites = tuple(
        site for site in flow.sites if any(bool((units[rows, 0] >= 0).any()) for rows in site.counts)
    )
    walls = tuple(flow.walls)
    return Groups(groups, walls, example, traced.aliases, sites, units, not flow.inexact)


def _all(flow: Flow) -> Tensor:
    return torch.arange(len(flow.labels))


def _make_rectangular(flow: Flow, deadline: float) -> None:
    """Tie what would leave holes in a grid, until nothing changes."""
    grids = list({(tuple(grid.shape), hash(grid.numpy().tobytes())): grid for grid in flow.grids}.values())
    while True:
        before = flow.labels.find(_all(flow))
        for grid in grids:
            if time.thread_time() > deadline:
                raise ModelError(
                    "finding groups of channels took too long; it stood at split axes. Raise `seconds`."
                )
            _make_one_rectangular(flow.labels, grid)
        if torch.equal(before, flow.labels.find(_all(flow))):
            return


def _make_one_rectangular(labels: Labels, grid: Tensor) -> None:
    """A class may be taken out of a grid if what remains is again all rows kept x all columns kept."""
    units = squeezed(labels.canon(grid))
    varying = axes(units)
    if len(varying) < 2:
        return
    units = units.squeeze()
    names, flat = torch.unique(units, return_inverse=True)
    cells = flat.flatten().bincount(minlength=len(names))
    remain = torch.ones(len(names), dtype=torch.int64)
    for axis, size in enumerate(units.shape):
        lines = flat.reshape(units.shape).movedim(axis, 0).flatten(1)
        whole = lines[(lines == lines[:, :1]).all(1), 0]
        remain *= size - whole.bincount(minlength=len(names))
    holes = (cells + remain != units.numel()) & (names != 0)
    if bool(holes.any()):
        labels.tie(units, units.narrow(0, 0, 1))


def _assemble(flow: Flow, order: dict[str, None]) -> tuple[tuple[Group, ...], Tensor]:
    """Groups, and [labels, 2] with the group and unit of each root."""
    labels = flow.labels
    place = {name: at for at, name in enumerate(order)}
    keys = sorted((key for key in flow.dims if key[0] in place), key=lambda key: (place[key[0]], key[1]))
    roots = {key: labels.find(flow.dims[key]) for key in keys}
    made = [key for key in keys if flow.roles.get(key) == OUT or bool(labels.has(roots[key], MADE).all())]
    joined = Labels()
    joined.fresh(len(labels))
    for key in made:
        if flow.roles.get(key) == OUT:
            joined.tie(roots[key] + 1, (roots[key][:1] + 1).expand_as(roots[key]))
    units = torch.full((len(labels), 2), -1, dtype=torch.int64)
    groups: list[Group] = []
    return _named(flow, keys, roots, joined, units, groups), units


def _named(
    flow: Flow,
    keys: list[tuple[str, int]],
    roots: dict[tuple[str, int], Tensor],
    joined: Labels,
    units: Tensor,
    groups: list[Group],
) -> tuple[Group, ...]:
    sizes: dict[int, int] = {}
    names: dict[int, str] = {}
    taken: set[str] = set()
    by_group: dict[int, list[Tensor]] = {}
    for key in keys:  # units are numbered in the order of the outputs of the layers that make them
        if flow.roles.get(key) != OUT:
            continue
        group = int(joined.find(roots[key][:1] + 1))
        if group not in names:
            layer = _layer(key[0])
            names[group] = layer if layer not in taken else key[0]
            taken.add(names[group])
        by_group.setdefault(group, []).append(roots[key])
    number = 0
    chosen: list[int] = []
    for group, parts in by_group.items():
        ordered = list(dict.fromkeys(torch.cat(parts).tolist()))
        live = ~flow.labels.has(torch.tensor(ordered), STAYS)
        if len(ordered) < 2 or not bool(live.any()):
            continue
        units[ordered, 0] = number
        units[ordered, 1] = torch.arange(len(ordered))
        sizes[group] = len(ordered)
        chosen.append(group)
        number += 1
    members: list[list[Member]] = [[] for _ in chosen]
    for key in keys:
        owned = units[roots[key]]
        for at in sorted(set(owned[:, 0].tolist())):
            if at >= 0:
                own = torch.where(owned[:, 0] == at, owned[:, 1], -1)
                members[at].append(Member(key[0], key[1], own, flow.roles.get(key, WITH)))
    for at, group in enumerate(chosen):
        which = (units[:, 0] == at).nonzero().flatten()
        removable = torch.zeros(sizes[group], dtype=torch.bool)
        removable[units[which, 1]] = ~flow.labels.has(which, STAYS)
        groups.append(Group(names[group], sizes[group], tuple(members[at]), removable))
    return tuple(groups)


def _layer(name: str) -> str:
    """The layer of a tensor; a weight that carries a parametrization belongs to the layer around it."""
    outer, parametrized, _ = name.partition(".parametrizations.")
    return (outer if parametrized else name.rpartition(".")[0]) or name
