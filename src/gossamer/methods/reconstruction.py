"""Layer reconstruction: the inputs a layer sees, as one Gram matrix, for every solver that keeps its outputs.

    H = sum_n x_n x_n^T / count        x_n: the inputs of one output position, length K = I/g * kh * kw (or I)

For a weight row w the change of its outputs is (w - w_hat)^T H (w - w_hat) per position, so H is all a solver needs.
Convolutions are unfolded; at most `positions` places per sample are used, drawn by seed. Accumulated in float64;
memory K^2, whatever the number of samples. Grouped convolutions have one Gram matrix per group: H is [g, K, K].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import FormatError


def supported(module: nn.Module) -> bool:
    """Whether `gram` can collect for this kind of layer."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


class _Enough(Exception):
    """Not an error: it ends a forward pass that has shown what was asked for."""


@torch.no_grad()
def gram(
    model: nn.Module, module: nn.Module, batches: Iterable[Tensor], *, positions: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(H, mean): float64 [g, K, K] and [g, K] over the inputs that `module` sees when `model` runs on `batches`."""
    generator = torch.Generator().manual_seed(seed)
    total: list[Any] = [None, None, 0]

    def collect(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        columns = _columns(module, args[0], positions, generator)  # [g, K, M]
        columns = columns.double()
        total[0] = columns @ columns.transpose(1, 2) + (0 if total[0] is None else total[0])
        total[1] = columns.sum(dim=2) + (0 if total[1] is None else total[1])
        total[2] += columns.shape[2]
        raise _Enough

    handle = module.register_forward_pre_hook(collect)
    try:
        for batch in batches:
            try:
                model(batch)
            except _Enough:
                continue
    finally:
        handle.remove()
    if not total[2]:
        raise FormatError(
            "The layer was not called by the model, so it has no inputs to reconstruct from. Skip it."
        )
    return total[0] / total[2], total[1] / total[2]


def _columns(module: nn.Module, x: Tensor, positions: int, generator: torch.Generator) -> Tensor:
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1]).t()[None]
    assert isinstance(module, nn.Conv2d)
    padding = module.padding
    assert not isinstance(padding, str)
    unfolded = F.unfold(
        x.contiguous(),
        module.kernel_size,
        dilation=module.dilation,
        padding=padding,
        stride=module.stride,
    )
    if unfolded.shape[2] > positions:
        unfolded = unfolded[:, :, torch.randperm(unfolded.shape[2], generator=generator)[:positions]]
    groups = module.groups
    n, rows, places = unfolded.shape
    return (
        unfolded.reshape(n, groups, rows // groups, places)
        .permute(1, 2, 0, 3)
        .reshape(groups, rows // groups, n * places)
    )
