"""Budget: from the scores of units to the choice that is just small enough.

    by_ratio   every group loses the same fraction of its units
    by_rank    one ranking of all units: the `count` lowest go, wherever they are
    within     the mildest of an ordered family of choices whose cost is at most the limit (bisection)

Every group keeps at least `least` of its units, one at least, and those that are not removable; so does every weight of the
units it has (in a stream that grows by padding, the first layers have only some). With `multiple`, the number
of channels that stay is rounded up to a multiple of it: the best of the dropped units come back. Ties are broken by position
(the earlier unit goes first), so a choice is exact and repeatable.

Costs that live in weights shrink with them: the parameters of a layer, and its multiply-adds, are proportional to the
entries its weight keeps (`Shrinkage`).
Raises: OptionError for ratios outside [0, 1), scores that do not fit, and limits that no choice can meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError
from .group import Choice, Group

Scores = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Widths:
    """What every choice leaves: the fraction `least` of a group's units, a channel count that is a multiple of `multiple`."""

    least: float = 0.0
    multiple: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise OptionError(f"least is the fraction of units that stays, 0 to 1; received {self.least!r}.")
        if not (isinstance(self.multiple, int) and self.multiple >= 1):
            raise OptionError(f"multiple is a whole number of at least 1; received {self.multiple!r}.")

    def needed(self, group: Group, kept: int) -> int:
        """How many units stay when `kept` are wanted; never more than there are."""
        kept = max(kept, 1, math.ceil(self.least * group.size - 1e-9))
        step = self.multiple // math.gcd(self.multiple, channels_per_unit(group))
        return min(-(-kept // step) * step, group.size)


def channels_per_unit(group: Group) -> int:
    """The channels that go with one unit, in the first layer that makes or reads them."""
    for member in group.members:
        owned = member.units[member.units >= 0]
        if len(owned):
            return max(1, len(owned) // group.size)
    return 1


def by_ratio(
    groups: Iterable[Group], scores: Scores, ratio: float | Mapping[str, float], widths: Widths
) -> dict[str, Tensor]:
    """Each group loses floor(ratio * size) of its units, the lowest scores first. ratio: one, or {group: ratio}."""
    choice = {}
    for group in groups:
        share = ratio.get(group.name, 0.0) if isinstance(ratio, Mapping) else ratio
        if not 0 <= share < 1:
            raise OptionError(
                f"{group.name}: ratio is the fraction of channels removed, 0 <= ratio < 1; received {share!r}. "
                "A layer pruned to nothing cannot compute."
            )
        order = _order(group, scores)
        choice[group.name] = _kept(group, order, math.floor(share * group.size + 1e-9), widths)
    return choice


def by_rank(groups: Iterable[Group], scores: Scores, count: int, widths: Widths) -> dict[str, Tensor]:
    """The `count` units of lowest score go, as far as the widths allow; scores must be comparable across groups."""
    groups = list(groups)
    orders = [_order(group, scores) for group in groups]
    values = torch.cat(
        [scores[g.name].double().cpu()[order] for g, order in zip(groups, orders, strict=True)]
    )
    owners = torch.cat([torch.full((len(order),), at) for at, order in enumerate(orders)])
    lowest = owners[torch.argsort(values, stable=True)[:count]]
    gone = torch.bincount(lowest, minlength=len(groups)).tolist()
    return {
        group.name: _kept(group, order, lost, widths)
        for group, order, lost in zip(groups, orders, gone, strict=True)
    }


def within(
    choices: Callable[[int], dict[str, Tensor]], most: int, cost: Callable[[Choice], float], limit: float
) -> dict[str, Tensor]:
    """choices(k) for the smallest k in 0..most with cost <= limit; a greater k must not cost more."""
    smallest = choices(most)
    if (least := cost(smallest)) > limit:
        raise OptionError(
            f"No choice of channels meets the limit of {limit:.6g}: {least:.6g} is the least that can be reached with these "
            "groups and widths. Raise the limit, lower min_width or round_to, or free layers that are skipped."
        )
    low, high = -1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(choices(middle)) <= limit else (middle, high)
    return choices(high)


class Shrinkage:
    """Costs that live in tensors: {plain name: amount}, of which a choice leaves the part its entries keep.

    shapes: of those tensors; what is in no tensor (products of activations) is `fixed`.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        amounts: Mapping[str, float],
        shapes: Mapping[str, tuple[int, ...]],
        *,
        fixed: float = 0.0,
    ) -> None:
        self.amounts, self.shapes, self.fixed = dict(amounts), shapes, fixed
        self.members = [(g.name, m) for g in groups for m in g.members if m.name in self.amounts]

    def __call__(self, choice: Choice) -> float:
        alive: dict[tuple[str, int], Tensor] = {}
        for name, member in self.members:
            if name in choice:
                kept = choice[name].cpu()[member.units.clamp_min(0)] | (member.units < 0)
                key = (member.name, member.dim)
                alive[key] = alive[key] & kept if key in alive else kept
        left = dict(self.amounts)
        for (tensor, dim), kept in alive.items():
            left[tensor] *= int(kept.sum()) / self.shapes[tensor][dim]
        return self.fixed + sum(left.values())


def _order(group: Group, scores: Scores) -> Tensor:
    """The removable units, lowest score first."""
    score = scores.get(group.name)
    if score is None or score.shape != (group.size,) or not bool(score.isfinite().all()):
        received = (
            "none" if score is None else f"shape {tuple(score.shape)}, finite: {bool(score.isfinite().all())}"
        )
        raise OptionError(
            f"{group.name}: expected one finite score for each of its {group.size} units; received {received}."
        )
    order = torch.argsort(score.double().cpu(), stable=True)
    return order[group.removable.cpu()[order]]


def _kept(group: Group, order: Tensor, lost: int, widths: Widths) -> Tensor:
    order = order[~_best_of_each_weight(group, order, widths.least)[order]]
    fixed = group.size - len(order)
    lost = min(lost, len(order))
    needed = widths.needed(group, group.size - lost)
    kept = torch.ones(group.size, dtype=torch.bool)
    kept[order[: max(0, min(lost, group.size - max(needed, fixed)))]] = False
    return kept


def _best_of_each_weight(group: Group, order: Tensor, least: float) -> Tensor:
    """bool [size]: the units without which a weight would keep less than `least` of its own, or nothing."""
    place = torch.full((group.size,), group.size)  # units that cannot go stand last
    place[order] = torch.arange(len(order))
    best = torch.zeros(group.size, dtype=torch.bool)
    for member in group.members:
        owned = member.units[member.units >= 0].cpu()
        units = torch.bincount(owned, minlength=group.size).nonzero().flatten()
        count = max(1, math.ceil(least * len(units) - 1e-9))
        best[units[place[units].topk(min(count, len(units))).indices]] = True
    return best
