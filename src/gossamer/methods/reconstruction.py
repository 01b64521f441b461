"""Layer reconstruction: what a layer reads and should give, as Gram matrices, for every solver that keeps its outputs.

    gram        H = sum_m x_m x_m^T / M                          of the inputs alone
    equations   X^T X, X^T Y, Y^T Y and the sums of X and Y      X of one network, Y of another at the same places

For a weight row w the squared change of its outputs is (w - w_hat)^T H (w - w_hat) per place, and the squared distance
of X w_hat from any target Y follows from X^T X, X^T Y and Y^T Y: this is all a solver needs, be it greedy, LASSO, least
squares or rounding. Sums are float64; memory K^2 per group of a convolution, whatever the number of samples. At most
`positions` places per sample are used, drawn by seed (methods.patches).

The target of the last layer of a residual branch: the sum counts, not the branch, so what the changed network lost
on its shortcut s' is asked of the branch, Y = y + (s - s') / a, a the slope of the norm between the two.
Source of that target: He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017,
arXiv:1707.06168, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StepError
from . import patches
from .layer_ends import Seen, look
from .layer_inputs import Batch, reconstructable, watch


def gram(
    model: nn.Module, layer: str, batches: Iterable[Batch], *, positions: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(H, mean): float64 [g, K, K] and [g, K] over what `layer` reads when `model` runs on `batches`.

    Raises: StepError for a layer that is never called.
    """
    module = reconstructable(model, layer)
    generator = torch.Generator().manual_seed(seed)
    total: list[Any] = [0.0, 0.0, 0]

    def add(_: str, x: Tensor, y: Tensor) -> None:
        for part in torch.split(x, patches.chunk(module, x, y)):
            rows = patches.inputs(module, part, patches.places(y, positions, generator)).double()
            total[0] = total[0] + rows.transpose(1, 2) @ rows
            total[1] = total[1] + rows.sum(dim=1)
            total[2] += rows.shape[1]

    watch(model, [layer], batches, add)
    return total[0] / total[2], total[1] / total[2]


@dataclass(frozen=True)
class Equations:
    """Sums over M places, float64, g groups: xx [g, K, K], xy [g, K, O/g], yy [g, O/g], x [g, K], y [g, O/g]."""

    count: int
    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor

    def centred(self) -> Equations:
        """The same about the means: what is left to explain when every output has an intercept."""
        x, y = self.x / self.count, self.y / self.count
        return Equations(
            self.count,
            self.xx - self.count * x[:, :, None] * x[:, None, :],
            self.xy - self.count * x[:, :, None] * y[:, None, :],
            self.yy - self.count * y.square(),
            torch.zeros_like(x),
            torch.zeros_like(y),
        )

    def error(self, weight: Tensor, bias: Tensor | None = None) -> float:
        """Mean over places of |y - W x - b|^2, summed over outputs; W [g, O/g, K], b [g, O/g] (None: the best one)."""
        if bias is None:
            return self.centred().error(weight, torch.zeros_like(self.y))
        product = ((weight @ self.xx) * weight).sum()
        cross = (weight.transpose(1, 2) * self.xy).sum()
        given = (weight @ self.x[:, :, None])[:, :, 0]
        total = (
            self.yy.sum() - 2 * cross + product + (bias * (2 * given - 2 * self.y + self.count * bias)).sum()
        )
        return max(float(total) / self.count, 0.0)


@torch.no_grad()
def equations(
    model: nn.Module,
    reference: nn.Module,
    layer: str,
    batches: Iterable[Batch],
    *,
    positions: int = 10,
    seed: int = 0,
    residual: bool = True,
) -> Equations:
    """What `layer` reads in `model` and what it gives in `reference`, on the same samples at the same places.

    residual: where the layer ends a residual branch, ask it for what the shortcut lost.
    Raises: FormatError for a layer that cannot be unfolded, StepError for one that is never called.
    """
    module, twin = reconstructable(model, layer), reconstructable(reference, layer)
    generator = torch.Generator().manual_seed(seed)
    sums: list[Any] = [0, 0.0, 0.0, 0.0, 0.0, 0.0]
    events = None
    for batch in batches:
        if events is None:
            first = batch[:1] if isinstance(batch, Tensor) else tuple(x[:1] for x in batch)
            events = sum(seen.events for seen in look(model, layer, first))
        pair = (look(network, layer, batch, events=events) for network in (model, reference))
        for now, aim in zip(*pair, strict=True):
            wanted = aim.y + _lost(now, aim) if residual else aim.y
            size = patches.chunk(module, now.x, now.y)
            for x, y in zip(torch.split(now.x, size), torch.split(wanted, size), strict=True):
                at = patches.places(y, positions, generator)
                rows, targets = patches.inputs(module, x, at).double(), patches.outputs(twin, y, at).double()
                turned = rows.transpose(1, 2)
                new = (turned @ rows, turned @ targets, targets.square().sum(1), rows.sum(1), targets.sum(1))
                sums = [sums[0] + rows.shape[1], *(a + b for a, b in zip(sums[1:], new, strict=True))]
    if not sums[0]:
        raise StepError("There are no calibration batches. Pass at least one, e.g. 512 training inputs.")
    return Equations(sums[0], *(total.cpu() for total in sums[1:]))


def _lost(now: Seen, aim: Seen) -> Tensor | float:
    """What the shortcut lost, in units of the layer's own output; 0 where there is none."""
    if now.shortcut is None or aim.shortcut is None:
        return 0.0
    lost = aim.shortcut - now.shortcut
    if now.slope is None:
        return lost
    slope = now.slope.reshape(1, -1, *[1] * (lost.dim() - 2))
    usable = slope.abs() > 1e-3  # a channel that the norm all but silences cannot make up for anything
    return torch.where(usable, lost / torch.where(usable, slope, 1), 0)
