"""Neuron merging: of two neurons that do nearly the same, one goes and the other takes over its outgoing weights.

    z = sum_u V[:, u] f(W_u x + b_u)
    delete j, keep i:    V[:, i] += V[:, j],      saliency(i, j) = <V[:, j]^2> |(W_i, b_i) - (W_j, b_j)|^2

<.>: mean over the outputs of a reader, summed over readers. The pair of least saliency goes first; then everything that
has V[:, i] in it is computed again. No data is needed, and equal neurons merge without any change. A batch norm behind W is
folded in first, so that the distance is that of the signals. Units of several channels merge channel by channel.

Only for signals that linear layers and convolutions (with a batch norm or not) make alone: what a shortcut or a depthwise
layer adds would be ignored.
Raises: OptionError for groups of another kind, and for wrong fractions.
Source: Srinivas, Babu, "Data-free parameter pruning for deep neural networks", BMVC 2015, arXiv:1507.06149.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import formats
from ..errors import OptionError
from .channel_readers import how_many
from .folded_rows import folded_rows

if TYPE_CHECKING:
    from ..pruning.budget import Widths
    from ..pruning.group import Group, Member

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
INFINITE = float("inf")


@dataclass(frozen=True)
class Merge:
    """Unit `gone` is added to unit `into`, at this saliency."""

    gone: int
    into: int
    saliency: float


@dataclass(frozen=True)
class Merging:
    """choice: {group: bool [size], True = kept}; merges: {group: in the order in which they were chosen}."""

    choice: dict[str, Tensor] = field(default_factory=dict)
    merges: dict[str, tuple[Merge, ...]] = field(default_factory=dict)


@torch.no_grad()
def choose_merges(
    model: nn.Module,
    groups: Sequence[Group],
    *,
    keep: float | Mapping[str, float],
    widths: Widths | None = None,
    norms: Mapping[str, str] | None = None,
) -> Merging:
    """Which units go and into which; the model is left as it is.

    keep: fraction of the units, one or {group: fraction}; groups it does not name stay whole. norms: {layer: the batch norm
    that stands alone behind it} (`Evidence.norms`).
    """
    found = Merging()
    counts = how_many(groups, keep, widths)
    for group in groups:
        if group.name in counts:
            merges = _greedy(
                _distances(model, group, norms or {}),
                _outgoing(model, group),
                group.size - counts[group.name],
                group.removable.cpu(),
            )
            kept = torch.ones(group.size, dtype=torch.bool)
            kept[[merge.gone for merge in merges]] = False
            found.choice[group.name] = kept
            found.merges[group.name] = tuple(merges)
    return found


@torch.no_grad()
def merge_(model: nn.Module, groups: Sequence[Group], merging: Merging) -> None:
    """Add outgoing weights as chosen, and zero those of the units that go, in place; then cut."""
    values = formats.plain_parameters(model)
    for group in groups:
        for member in group.of("in") if group.name in merging.merges else ():
            wide = values[member.name].movedim(member.dim, 0)
            columns = _indices(member, group)
            for merge in merging.merges[group.name]:
                wide[columns[merge.into]] += wide[columns[merge.gone]]
                wide[columns[merge.gone]] = 0


def _greedy(distances: Tensor, strength: Tensor, count: int, removable: Tensor) -> list[Merge]:
    """`count` merges; strength: V by unit, float64 [U, P], scaled so that its squares sum to <V^2>."""
    size = len(distances)
    distances = distances.clone().fill_diagonal_(INFINITE)
    strength = strength.clone()
    saliency = distances * strength.square().sum(dim=1)  # [into, gone]
    saliency.nan_to_num_(nan=INFINITE)  # a unit without outgoing weights: 0 times the infinite diagonal
    saliency[:, ~removable] = INFINITE
    merges = []
    for _ in range(count):
        into, gone = divmod(int(saliency.argmin()), size)
        merges.append(Merge(gone, into, float(saliency[into, gone])))
        strength[into] += strength[gone]
        saliency[:, gone] = saliency[gone, :] = distances[:, gone] = distances[gone, :] = INFINITE
        if removable[into]:
            column = distances[:, into] * strength[into].square().sum()
            saliency[:, into] = column.nan_to_num(nan=INFINITE)
    return merges


def _distances(model: nn.Module, group: Group, norms: Mapping[str, str]) -> Tensor:
    """|(W_i, b_i) - (W_j, b_j)|^2 for all pairs of units, summed over the layers that make them: float64 [U, U]."""
    known, total = set(), torch.zeros(group.size, group.size, dtype=torch.float64)
    for member in group.of("out"):
        layer, _, leaf = member.name.rpartition(".")
        if leaf != "weight":
            continue
        norm = norms.get(layer)
        known |= {f"{path}.{leaf}" for path in (layer, norm) if path for leaf in STATISTICS}
        weight, bias = folded_rows(model, layer, norm, dim=member.dim)
        rows = torch.cat([weight.movedim(member.dim, 0).flatten(1), bias[:, None]], dim=1)
        units = rows[_indices(member, group)].flatten(1).cpu()
        total += torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist").square()
    strange = [m.name for m in group.members if m.role != "in" and m.name not in known]
    if strange or not known:
        raise OptionError(
            f"{group.name}: neurons merge where linear layers or convolutions make them, with a batch norm directly behind or "
            f"none; {', '.join(strange[:3]) or 'no such layer'} does not fit. Leave the group out, or pass norms=."
        )
    return total


def _outgoing(model: nn.Module, group: Group) -> Tensor:
    """V by unit, each reader divided by the root of its number of outputs: float64 [U, P]."""
    values, parts = formats.plain_parameters(model), []
    for member in group.of("in"):
        wide = values[member.name].detach().double().movedim(member.dim, 0)
        parts.append(wide[_indices(member, group)].flatten(1).cpu() / wide.shape[1] ** 0.5)
    if not parts:
        raise OptionError(f"{group.name}: no layer reads these neurons. Leave the group out.")
    return torch.cat(parts, dim=1)


def _indices(member: Member, group: Group) -> Tensor:
    """The indices of each unit, in order: int64 [U, indices per unit]."""
    units = member.units.cpu()
    held = torch.bincount(units[units >= 0], minlength=group.size)
    if len(held) == 0 or bool((held != held[0]).any()) or held[0] == 0:
        raise OptionError(
            f"{group.name}: {member.name} does not hold every unit with the same number of channels, so they cannot be merged. "
            "Leave the group out."
        )
    order = torch.argsort(units, stable=True)[int((units < 0).sum()) :]
    return order.reshape(group.size, -1)
