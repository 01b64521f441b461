"""Network slimming: the scales of batch norms are trained under an L1 penalty, and channels of small scale go.

    L = loss + lambda sum |gamma|          gamma starts at 0.5

With the penalty in the loss (`SlimmingLoss`) the gradient gets lambda sign(gamma), as in the paper: scales hover around
zero. The proximal form (`ShrinkScales`, after each step) sets them to exactly zero instead. Channels are then chosen by
the criterion "scale" under one ranking over all groups, with a floor on the width of each: a global threshold can empty a
layer. A channel of gamma 0 still gives f(beta): `pruning.compensation` moves that into the next layer; dropping it with the
channel, as the official code does, changes the outputs. Fine-tune without the penalty. lambda: 1e-4 for VGG, 1e-5 for
ResNet-164 and DenseNet-40. Weight decay (1e-4 in the paper, on scales too) pulls in the same direction.
Source: Liu, Li, Shen, Huang, Yan, Zhang, "Learning efficient convolutional networks through network slimming", ICCV
2017, arXiv:1708.06519, equation 1 and section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ..errors import OptionError
from .proximal import soft_threshold, step_sizes

Loss = Callable[[Any, Tensor, Tensor, nn.Module], Tensor]  # (outputs, labels, inputs, model) -> scalar


def scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """gamma of every batch norm that has one, by plain name."""
    found = {f"{path}.weight": m.weight for path, m in model.named_modules() if isinstance(m, _BatchNorm)}
    return {name: gamma for name, gamma in found.items() if isinstance(gamma, nn.Parameter)}


@torch.no_grad()
def start_scales_(model: nn.Module, value: float = 0.5) -> None:
    """Set every gamma, before training from scratch."""
    for gamma in _need(model).values():
        gamma.fill_(value)


def share_below(model: nn.Module, bound: float = 0.01) -> float:
    """The fraction of scales with |gamma| < bound."""
    values = torch.cat([gamma.detach().abs() for gamma in _need(model).values()])
    return float((values < bound).double().mean())


@dataclass(frozen=True)
class SlimmingLoss:
    """loss + penalty * sum |gamma|, for `fit(loss=...)`; `base` is cross entropy when not given."""

    penalty: float = 1e-4
    base: Loss | None = None

    def __post_init__(self) -> None:
        _check(self.penalty)

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor, model: nn.Module) -> Tensor:
        value = (
            F.cross_entropy(outputs, labels)
            if self.base is None
            else self.base(outputs, labels, inputs, model)
        )
        total = torch.stack([gamma.abs().sum() for gamma in _need(model).values()]).sum()
        return value + self.penalty * total


@dataclass(frozen=True)
class ShrinkScales:
    """The proximal step of penalty * sum |gamma|, for `AfterStep`."""

    penalty: float = 1e-4

    def __post_init__(self) -> None:
        _check(self.penalty)

    @torch.no_grad()
    def __call__(self, model: nn.Module, optimizer: Optimizer) -> None:
        sizes = step_sizes(optimizer)
        for gamma in _need(model).values():
            if gamma in sizes:
                gamma.copy_(soft_threshold(gamma, self.penalty * sizes[gamma]))


def _need(model: nn.Module) -> dict[str, nn.Parameter]:
    found = scales(model)
    if not found:
        raise OptionError(
            f"network slimming: {type(model).__name__} has no batch norm with a scale. Use a penalty on the weights "
            "(StructuredSparsity)."
        )
    return found


def _check(penalty: float) -> None:
    if not penalty > 0:
        raise OptionError(f"network slimming: penalty is {penalty!r}, expected a positive number.")
