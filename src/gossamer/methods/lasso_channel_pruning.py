"""LASSO channel pruning: few inputs of a layer are picked by an L1 penalty, then all its weights are fitted anew.

    choose   argmin_beta 1/(2 N) |Y - sum_i beta_i X_i W_i^T|^2 + lambda |beta|_1,   |W_i|_F = 1,  lambda up until few are left
    refit    W', b' = argmin |Y - X W'^T - b'|^2 over every weight of the kept channels

X: padded, strided windows of what the layer reads in the network as pruned so far. Y: what it gives in the original
network, before the norm, so errors do not pile up; at the end of a residual branch also what the shortcut lost (methods.
reconstruction). b' goes to the layer's bias, or else to the running mean of the norm behind it; with neither, the fit is
through the origin. Several layers that read a channel have their objectives added.

Differs from the paper: the LASSO sees all samples, which cost nothing once they are in Gram matrices, about their means, as
the fit has an intercept; a ridge holds weights near the old ones where the samples are too few.
Source: He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, arXiv:1707.06168.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .channel_readers import Reader, how_many, one_by_one
from .channel_solvers import aims, lasso_choice, least_squares, products
from .layer_ends import look
from .layer_inputs import Batch
from .reconstruction import Equations, equations

if TYPE_CHECKING:
    from ..pruning.budget import Widths
    from ..pruning.group import Choice, Group


def choose_lasso(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Sequence[Batch],
    *,
    keep: float | Mapping[str, float],
    widths: Widths | None = None,
    refit: bool = True,
    asymmetric: bool = True,
    positions: int = 10,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which units of each group stay; the model is left as it is.

    keep: fraction of the units, one or {group: fraction}; groups it does not name stay whole. refit: later layers see the
    fitted network, as after `refit_`. asymmetric: targets of the original network, else of the network as pruned so far.
    batches: training inputs; positions: places drawn per picture.
    """
    counts = how_many(groups, keep, widths)
    twin = copy.deepcopy(model)
    fit = _Fit(twin, model if asymmetric else twin, batches, positions, seed)

    def choose(group: Group, held: list[Reader]) -> Tensor:
        gram = torch.zeros(group.size, group.size, dtype=torch.float64)
        aim = torch.zeros(group.size, dtype=torch.float64)
        for reader in held:
            seen = fit.collect(reader)
            weight = _normalized(reader, group.size)
            samples = seen.count * weight.shape[0] * weight.shape[1]
            gram += products(seen.xx, weight, reader.units, group.size) / samples
            aim += aims(seen.xx, seen.xy, weight, reader.units, group.size) / samples
        return lasso_choice(gram, aim, counts[group.name], group.removable.cpu())

    named = [group for group in groups if group.name in counts]
    return one_by_one(twin, named, batches, choose, fit.refit_ if refit else None)


def refit_(
    model: nn.Module,
    groups: Sequence[Group],
    choice: Choice,
    batches: Sequence[Batch],
    *,
    reference: nn.Module | None = None,
    asymmetric: bool = True,
    positions: int = 10,
    seed: int = 0,
) -> None:
    """Zero, in place, the columns that read what a choice removes, and fit the layers' other weights and biases anew.

    reference: the original network, with the same names (None: `model` as it is given).
    """
    original = reference if reference is not None else copy.deepcopy(model)
    fit = _Fit(model, original if asymmetric else model, batches, positions, seed)

    def collect(group: Group, held: list[Reader]) -> Tensor:
        for reader in held:
            fit.collect(reader)
        return choice[group.name].cpu()

    one_by_one(model, [group for group in groups if group.name in choice], batches, collect, fit.refit_)


class _Fit:
    """Equations of a group's readers, collected before its columns become zero, and the fit that follows."""

    def __init__(
        self, model: nn.Module, reference: nn.Module, batches: Sequence[Batch], positions: int, seed: int
    ) -> None:
        self.model, self.reference, self.batches = model, reference, batches
        self.positions, self.seed = positions, seed
        self.seen: dict[str, Equations] = {}

    def collect(self, reader: Reader) -> Equations:
        """Equations about the means where the layer can take an intercept, else as they are."""
        seen = self._equations(reader)
        self.seen[reader.layer] = seen
        return seen if self._home(reader) is None else seen.centred()

    def refit_(self, group: Group, held: list[Reader], kept: Tensor) -> None:
        for at, reader in enumerate(held):
            # the fit of an earlier reader may have changed what this one reads; targets of its own are those from before
            stale = at > 0 and self.reference is not self.model
            seen = self._equations(reader) if stale else self.seen[reader.layer]
            home, weight = self._home(reader), reader.weight
            about = seen if home is None else seen.centred()
            living = reader.columns(kept) & (weight != 0).any(0).any(0)  # what went before stays away
            new = least_squares(about.xx, about.xy, weight, living)
            reader.write_(new)
            if home is not None:
                bias = (seen.y - (new @ seen.x[:, :, None])[:, :, 0]).flatten() / seen.count
                self._intercept_(home, bias)

    def _equations(self, reader: Reader) -> Equations:
        return equations(
            self.model,
            self.reference,
            reader.layer,
            self.batches,
            positions=self.positions,
            seed=self.seed,
        )

    def _home(self, reader: Reader) -> str | None:
        """The path of the module that takes the intercept."""
        if isinstance(reader.module.bias, Tensor):
            return reader.layer
        batch = self.batches[0]
        first = batch[:1] if isinstance(batch, Tensor) else tuple(x[:1] for x in batch)
        return look(self.model, reader.layer, first)[0].norm

    @torch.no_grad()
    def _intercept_(self, home: str, bias: Tensor) -> None:
        module, original = (network.get_submodule(home) for network in (self.model, self.reference))
        if isinstance(module, _BatchNorm):
            # targets are outputs in front of the reference's norm
            mean = original.running_mean
            assert isinstance(module.running_mean, Tensor)
            assert isinstance(mean, Tensor)
            module.running_mean.copy_(mean - bias.to(mean))
        else:
            assert isinstance(module.bias, Tensor)
            module.bias.copy_(bias)


def _normalized(reader: Reader, size: int) -> Tensor:
    """W with every unit's columns of norm 1."""
    weight = reader.weight
    squares = torch.zeros(size + 1, dtype=torch.float64)
    squares.index_add_(0, reader.units + 1, weight.square().sum((0, 1)))
    norms = squares.sqrt()
    norms[0] = 1  # columns of no unit count as they are
    norms[norms == 0] = 1
    return weight / norms[reader.units + 1]
