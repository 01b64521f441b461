"""GPTQ: columns of a weight are rounded in turn, and the columns that are left take up each error.

    min |(W - W_q) X|^2,   H = E x x^T + damping mean(diag H) I,   U^T U = H^-1, U upper triangular
    for every column j:    e = (w_j - round(w_j)) / U_jj           W[:, j:] -= e U[j, j:]

X: the inputs of the layer in the network quantized so far. Within a block of columns updates are immediate, the rest
follows after the block: the same numbers in fewer products. A column that never sees an input (H_jj = 0) becomes zero.
act_order takes the columns in falling order of H_jj. The grid is that of the weight's Uniform format. A scale per group
of inputs is fitted anew, as the format fits it, when the group's turn comes, from the weights as updated by then; with
act_order it stays. Pruned places take the code 0, and the other columns take up that error too.

Differs from the official code: the damping is a mean over live columns, because the 1 that stands in for a dead one has
another unit; a group that starts within a block sees all updates before it.
Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for generative pre-trained
transformers", ICLR 2023, arXiv:2210.17323, algorithm 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import OptionError, StepError, TrainingError
from ..formats import Uniform
from .layer_inputs import Batch
from .reconstruction import gram
from .weight_grid import Rounding, WeightGrid, write_


@torch.no_grad()
def gptq(
    model: nn.Module,
    name: str,
    batches: Iterable[Batch],
    *,
    block: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    positions: int = 64,
    seed: int = 0,
) -> Rounding:
    """Choose the codes of the weight `name` of `model`, in place, from the weight its format keeps.

    positions: places per picture that the inputs of a convolution are sampled at. The layers of a network are rounded in
    the order in which they run.
    Raises: FormatError without a Uniform grid and for another kind of layer, TrainingError for inputs that are not finite.
    """
    if block < 1 or not damping > 0 or positions < 1:
        raise OptionError(
            f"GPTQ: block {block}, damping {damping}, positions {positions}; expected block and positions of at least 1 "
            "and a positive damping."
        )
    grid = WeightGrid.of(model, name)
    hessian = gram(model, name.rpartition(".")[0], batches, positions=positions, seed=seed)[0]
    if not bool(hessian.isfinite().all()):
        raise TrainingError(
            f"{name}: the inputs of this layer are not finite on the calibration data. Repair the layers before it."
        )
    rows, shape = len(grid.latent), (len(hessian), -1, hessian.shape[1])  # [g, O/g, K]
    weight, scale = (t.reshape(shape).double() for t in (grid.latent, grid.scale))
    group = None if act_order or grid.uniform.step is not None else grid.group
    chosen, fitted = round_columns(
        weight,
        hessian,
        scale,
        grid.kept.reshape(shape),
        grid.clip,
        block=block,
        damping=damping,
        act_order=act_order,
        group=group,
        refit=_refit(grid.uniform),
    )
    nearest = grid.nearest(grid.latent)
    new = fitted.reshape(rows, -1)[:, ::group] if group else None
    write_(model, name, chosen.reshape(grid.latent.shape), new)
    return Rounding(
        name,
        output_error(weight - nearest.reshape(shape) * scale, hessian),
        output_error(weight - chosen * fitted, hessian),
        int((chosen.reshape(nearest.shape) != nearest).sum()),
    )


def output_error(change: Tensor, hessian: Tensor) -> float:
    """Mean squared change of the outputs per position, summed over channels, for a change [g, R, K] of the weight."""
    return float(((change @ hessian) * change).sum())


def round_columns(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    kept: Tensor,
    clip: Callable[[Tensor], Tensor],
    *,
    block: int = 128,
    damping: float = 0.01,
    act_order: bool = False,
    group: int | None = None,
    refit: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Codes and scale, float64 [g, R, K], of `weight` [g, R, K] with inputs of Gram matrix `hessian` [g, K, K].

    scale, kept: of the weight's shape; clip: cuts codes to their range. group, refit: so many columns share a scale, and
    the scale [g, R] that fits such columns; not with act_order.
    """
    dead = hessian.diagonal(dim1=1, dim2=2) == 0  # [g, K]
    left = torch.where(dead[:, None] | ~kept, 0, weight)
    order = torch.arange(weight.shape[2], device=weight.device).expand(dead.shape)
    if act_order:
        order = hessian.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    columns = order[:, None].expand_as(weight)
    left, scale, kept = (t.gather(2, columns) for t in (left, scale, kept))
    upper = inverse_factor(hessian, damping, order)
    codes = torch.zeros_like(left)
    size = weight.shape[2]
    starts = {*range(0, size, block), *(range(0, size, group) if group else ())}
    for start, stop in pairwise([*sorted(starts), size]):
        if group and refit and start % group == 0:
            part = slice(start, min(start + group, size))
            scale[:, :, part] = refit(left[:, :, part] * kept[:, :, part])[:, :, None]
        errors = torch.zeros_like(left[:, :, start:stop])
        for j in range(start, stop):
            codes[:, :, j] = clip(left[:, :, j] / scale[:, :, j]).round() * kept[:, :, j]
            error = (left[:, :, j] - codes[:, :, j] * scale[:, :, j]) / upper[:, j, j, None]
            left[:, :, j + 1 : stop] -= error[:, :, None] * upper[:, None, j, j + 1 : stop]
            errors[:, :, j - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return torch.empty_like(codes).scatter_(2, columns, codes), torch.empty_like(scale).scatter_(
        2, columns, scale
    )


def inverse_factor(hessian: Tensor, damping: float, order: Tensor) -> Tensor:
    """U [g, K, K], upper triangular with U^T U = (H + damping)^-1, the columns of H taken in `order` [g, K]."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0
    added = damping * diagonal.sum(dim=1) / (~dead).sum(dim=1).clamp_min(1)
    damped = hessian + torch.diag_embed(torch.where(dead, 1.0, added[:, None]))
    ordered = damped.gather(1, order[:, :, None].expand_as(damped)).gather(
        2, order[:, None].expand_as(damped)
    )
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
        upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
        return upper
    except RuntimeError as error:  # torch.linalg's own error is one
        raise StepError(
            f"GPTQ: the Gram matrix of the inputs cannot be inverted ({error}). Use more damping than {damping}, or more "
            "calibration data."
        ) from error


def _refit(uniform: Uniform) -> Callable[[Tensor], Tensor]:
    """The scale [g, R] of columns [g, R, n] that the format's own rule fits."""
    own = dataclasses.replace(uniform, granularity="channel")

    def fit(columns: Tensor) -> Tensor:
        parts = own.encode(columns.flatten(0, 1).float())
        return own.kept_scale(*parts).double().reshape(columns.shape[:2])

    return fit
