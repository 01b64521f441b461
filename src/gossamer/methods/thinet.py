"""ThiNet: channels go whose sum changes least what the next layer gives; the others are rescaled to make up for it.

    z_i = sum_{kh, kw} W_next[o, i] x_i       what channel i gives to output o of the next layer at one place
    choose     T = {}; repeat T += argmin_i sum over samples of (z_i + sum_{j in T} z_j)^2
    rescale    W_next[:, i] *= s_i,   s = argmin sum over samples of (sum_i z_i - sum_{i kept} s_i z_i)^2

A sample is a pair (output, place). Several layers that read a channel have their objectives added, and each gets scales of
its own. Both sides come from the network as pruned so far; activations and norms before the layer are within x, so removal
is exact, and a scale may be negative because it goes to W_next.

Differs from the paper: all outputs of a drawn place are used, which the products of Gram matrices give at no cost, where
the paper draws 10 pairs per picture; a ridge holds scales near 1 where channels are collinear; fine-tuning follows once, at
the end, where the paper trains an epoch after each layer.
Source: Luo, Wu, Lin, "ThiNet: A filter level pruning method for deep neural network compression", ICCV 2017,
arXiv:1707.06342, algorithm 1 and equation 7.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .channel_readers import Reader, how_many, one_by_one
from .channel_solvers import greedy, products, scales
from .layer_inputs import Batch
from .reconstruction import gram

if TYPE_CHECKING:
    from ..pruning.budget import Widths
    from ..pruning.group import Choice, Group


def choose_thinet(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Sequence[Batch],
    *,
    keep: float | Mapping[str, float],
    widths: Widths | None = None,
    rescale: bool = True,
    positions: int = 10,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which units of each group stay; the model is left as it is.

    keep: fraction of the units, one or {group: fraction}; groups it does not name stay whole. rescale: later layers see
    the rescaled network, as after `rescale_`. batches: training inputs; positions: places drawn per picture.
    """
    counts = how_many(groups, keep, widths)
    twin = copy.deepcopy(model)
    seen: dict[str, Tensor] = {}

    def choose(group: Group, held: list[Reader]) -> Tensor:
        seen.clear()
        for reader in held:
            seen[reader.layer] = _products(twin, reader, group, batches, positions, seed)
        total = torch.stack(list(seen.values())).sum(0)
        return greedy(total, group.size - counts[group.name], group.removable.cpu())

    def repair(group: Group, held: list[Reader], kept: Tensor) -> None:
        for reader in held if rescale else ():
            _rescale_(reader, seen[reader.layer], kept)

    return one_by_one(twin, [g for g in groups if g.name in counts], batches, choose, repair)


def rescale_(
    model: nn.Module,
    groups: Sequence[Group],
    choice: Choice,
    batches: Sequence[Batch],
    *,
    positions: int = 10,
    seed: int = 0,
) -> None:
    """Zero, in place, the columns that read what a choice removes, and rescale the others by least squares."""
    seen: dict[str, Tensor] = {}

    def collect(group: Group, held: list[Reader]) -> Tensor:
        for reader in held:
            seen[reader.layer] = _products(model, reader, group, batches, positions, seed)
        return choice[group.name].cpu()

    def repair(group: Group, held: list[Reader], kept: Tensor) -> None:
        for reader in held:
            _rescale_(reader, seen[reader.layer], kept)

    one_by_one(model, [group for group in groups if group.name in choice], batches, collect, repair)


def _products(
    model: nn.Module, reader: Reader, group: Group, batches: Sequence[Batch], positions: int, seed: int
) -> Tensor:
    xx = gram(model, reader.layer, batches, positions=positions, seed=seed)[0].cpu()
    return products(xx, reader.weight, reader.units, group.size)


def _rescale_(reader: Reader, seen: Tensor, kept: Tensor) -> None:
    factors = torch.cat(
        [scales(seen, kept), torch.ones(1, dtype=torch.float64)]
    )  # the last one: columns of no unit
    reader.write_(reader.weight * factors[reader.units])
