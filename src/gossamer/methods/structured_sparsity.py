"""Structured sparsity learning (SSL): group lasso over filters, channels, kernels, shapes and whole layers.

    R(W) = sum over groups G of lambda |w_G|_2          W: [O, I, kh, kw], or [O, I] of a linear layer

    filters    W[o]            rows of the lowered (im2col) matrix         removed as channels (`dead_channels`)
    channels   W[:, i]                                                     removed as channels
    kernels    W[o, i]         2-D filters
    shapes     W[:, i, y, x]   columns of the lowered matrix               a smaller product: `lowered` keeps rows x columns
    depth      W               the whole layer: only where a shortcut passes what a zero layer loses

The paper adds R to the loss (`penalty`; the gradient of a zero group is 0) and sets |w| < 1e-4 to zero after each step
(`zero_small_`). Called after each step instead (`AfterStep`), the object is the proximal form: groups become exactly zero
and nothing needs a threshold. From small groups to large, the prox of nested groups (shapes in channels, kernels in filters
or channels, all in depth) is exact; filters beside channels or shapes overlap, and their two thresholds in turn only come
near it. by_size: lambda sqrt(|G|) instead of lambda (Yuan and Lin; not in the paper).

Start from a trained network; then freeze the zeros (`KeepZeros`) and fine-tune without R. No weight decay beside R.
Source: Wen, Wu, Wang, Chen, Li, "Learning structured sparsity in deep neural networks", NIPS 2016, arXiv:1608.03665,
section 3. Nested groups: Jenatton, Mairal, Obozinski, Bach, "Proximal methods for hierarchical sparse coding", JMLR 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import formats
from ..errors import OptionError
from .proximal import group_threshold, step_sizes

GROUPS = {  # dimensions of [O, I, kh kw] that a group takes whole; small groups first
    "kernels": (2,),
    "shapes": (0,),
    "channels": (0, 2),
    "filters": (1, 2),
    "depth": (0, 1, 2),
}


@dataclass(frozen=True, kw_only=True)
class StructuredSparsity:
    """lambda of each structure, over the same `layers` (linear layers and convolutions, by path); 0: not used."""

    layers: Sequence[str]
    filters: float = 0.0
    channels: float = 0.0
    kernels: float = 0.0
    shapes: float = 0.0
    depth: float = 0.0
    by_size: bool = False

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in GROUPS}
        if min(given.values()) < 0 or not any(given.values()):
            raise OptionError(
                f"structured sparsity: {given}; expected numbers of at least 0, one of them positive."
            )

    def penalty(self, model: nn.Module) -> Tensor:
        """R, to be added to the loss."""
        terms = [
            torch.linalg.vector_norm(wide, dim=dims).sum() * self._lambda(name, wide)
            for wide in (_wide(_weight(model, layer)) for layer in self.layers)
            for name, dims in self._used()
        ]
        return torch.stack(terms).sum()

    @torch.no_grad()
    def __call__(self, model: nn.Module, optimizer: Optimizer) -> None:
        """The proximal step."""
        sizes = step_sizes(optimizer)
        for layer in self.layers:
            weight = _weight(model, layer)
            weight.copy_(self.shrunk(weight, sizes[weight]))

    def shrunk(self, weight: Tensor, tau: float) -> Tensor:
        """The weight after a proximal step of length tau."""
        wide = _wide(weight.detach())
        for name, dims in self._used():
            wide = group_threshold(wide, tau * self._lambda(name, wide), dims)
        return wide.reshape(weight.shape)

    def _used(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(name, dims) for name, dims in GROUPS.items() if getattr(self, name)]

    def _lambda(self, name: str, wide: Tensor) -> float:
        size = math.prod(wide.shape[dim] for dim in GROUPS[name]) if self.by_size else 1
        return float(getattr(self, name)) * math.sqrt(size)


class KeepZeros:
    """For `AfterStep`: weights of the layers that are zero now stay zero."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.zeros = {layer: _weight(model, layer).detach() == 0 for layer in layers}

    @torch.no_grad()
    def __call__(self, model: nn.Module, optimizer: Optimizer) -> None:
        for layer, zeros in self.zeros.items():
            _weight(model, layer).masked_fill_(zeros, 0)


@torch.no_grad()
def zero_small_(model: nn.Module, layers: Sequence[str], below: float = 1e-4) -> None:
    """Set |w| < below to zero: how the paper's gradient form reaches zeros."""
    for layer in layers:
        weight = _weight(model, layer)
        weight.masked_fill_(weight.abs() < below, 0)


def zero_groups(weight: Tensor) -> dict[str, Tensor]:
    """{structure: bool, one entry per group}: which are all zero; filters [O], channels [I], shapes [I * kh * kw], ..."""
    zero = _wide(weight.detach()) == 0
    found = {}
    for name, dims in GROUPS.items():
        left = zero
        for dim in sorted(dims, reverse=True):
            left = left.all(dim=dim)
        found[name] = left.reshape(-1)
    return found


def lowered(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(matrix [R, C], rows int64 [R], columns int64 [C]): the im2col matrix without its zero rows and columns.

    Output channels `rows` of the convolution are matrix @ unfolded inputs[columns]; all others are the bias.
    """
    zero = zero_groups(weight)
    rows, columns = (~zero["filters"]).nonzero()[:, 0], (~zero["shapes"]).nonzero()[:, 0]
    return weight.detach().flatten(1)[rows][:, columns], rows, columns


def _wide(weight: Tensor) -> Tensor:
    """[O, I, kh kw]."""
    return weight.reshape(weight.shape[0], weight.shape[1], -1)


def _weight(model: nn.Module, layer: str) -> Tensor:
    module, _ = formats.locate(model, f"{layer}.weight")
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() < 2:
        reason = "carries a format" if weight is None else f"has shape {tuple(weight.shape)}"
        raise OptionError(
            f"{layer}: its weight {reason}; expected the plain weight of a linear layer or a convolution."
        )
    return weight
