"""Activations: what the channels of a group carry, measured where they are read.

    zeros = share of |a| <= eps      mean = E a      mean_abs = E |a|      square = E a^2      lowest = min a

over samples and positions, per input channel of a layer (float64 [C]); running sums, so memory does not grow with the
data. Measured at the input of the layers that read a group, in eval mode: behind activation, pooling and flattening,
where removing a unit takes exactly this signal away. `per_unit` averages a channel's figures over the unit that owns it.

Differs from the paper: APoZ is counted there right behind the ReLU; behind max pooling fewer zeros are left.
Raises: OptionError for layers whose input channels are not known.
Source: Hu, Peng, Tai, Tang, "Network Trimming", 2016, arXiv:1607.03250, equation 1 (share of zeros).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import OptionError
from ..methods.layer_inputs import Batch, watch
from .group import IN, Group, Member


@dataclass(frozen=True)
class Activations:
    """Figures of a layer's input channels, float64 [C], over `count` values of each channel."""

    count: int
    zeros: Tensor
    mean: Tensor
    mean_abs: Tensor
    square: Tensor
    lowest: Tensor

    @property
    def variance(self) -> Tensor:
        """E a^2 - (E a)^2 of each channel."""
        return (self.square - self.mean.square()).clamp_min(0)


def readers(model: nn.Module, group: Group) -> dict[str, Member]:
    """{path: member} of the linear layers and convolutions that read the group's channels, in the order of the network."""
    found = {}
    for member in group.of(IN):
        path, _, leaf = member.name.rpartition(".")
        if leaf == "weight" and isinstance(model.get_submodule(path), (nn.Linear, _ConvNd)):
            found[path] = member
    return found


def layer_activations(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Batch],
    *,
    max_batches: int | None = None,
    eps: float = 0.0,
) -> dict[str, Activations]:
    """{layer: figures of its inputs} for linear layers and convolutions.

    max_batches: so many batches are enough. eps: |a| <= eps counts as zero; more than 0 where no ReLU makes exact zeros.
    """
    axes = {layer: _input_axis(model, layer) for layer in layers}
    sums: dict[str, _Sums] = {}

    def add(layer: str, x: Tensor, y: Tensor) -> None:
        wide = x.detach().movedim(axes[layer], 0).flatten(1)
        if layer not in sums:
            sums[layer] = _Sums(wide)
        sums[layer].add(wide, eps)

    if layers:
        watch(model, layers, islice(batches, max_batches), add)
    return {layer: held.finish() for layer, held in sums.items()}


def group_activations(
    model: nn.Module,
    groups: Iterable[Group],
    batches: Iterable[Batch],
    *,
    max_batches: int | None = None,
    eps: float = 0.0,
) -> dict[str, Activations]:
    """`layer_activations` of every layer that reads one of the groups, in one pass over the data."""
    layers = dict.fromkeys(path for group in groups for path in readers(model, group))
    return layer_activations(model, list(layers), batches, max_batches=max_batches, eps=eps)


def per_unit(values: Tensor, member: Member, size: int) -> Tensor:
    """The mean of the channels' values [C] over those that each unit owns: float64 [size].

    A grouped convolution has fewer columns than input channels: a column stands for one channel of every group.
    """
    columns = values.double().reshape(-1, len(member.units)).mean(dim=0).cpu()
    units = member.units.cpu()
    owned = units >= 0
    total = torch.zeros(size, dtype=torch.float64).index_add_(0, units[owned], columns[owned])
    return total / torch.bincount(units[owned], minlength=size).clamp_min(1)


class _Sums:
    """Running sums over the values of each channel, in float64."""

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.zeros, self.first, self.absolute, self.second = (
            torch.zeros(len(like), dtype=torch.float64, device=like.device) for _ in range(4)
        )
        self.lowest = torch.full_like(self.first, float("inf"))

    def add(self, values: Tensor, eps: float) -> None:
        """values: [C, samples * positions]."""
        self.count += values.shape[1]
        self.zeros += (values.abs() <= eps).sum(dim=1)
        self.first += values.sum(dim=1, dtype=torch.float64)
        self.absolute += values.abs().sum(dim=1, dtype=torch.float64)
        self.second += values.double().square_().sum(dim=1)
        self.lowest = torch.minimum(self.lowest, values.amin(dim=1).double())

    def finish(self) -> Activations:
        return Activations(
            count=self.count,
            zeros=self.zeros / self.count,
            mean=self.first / self.count,
            mean_abs=self.absolute / self.count,
            square=self.second / self.count,
            lowest=self.lowest,
        )


def _input_axis(model: nn.Module, layer: str) -> int:
    module = model.get_submodule(layer)
    if isinstance(module, nn.Linear):
        return -1
    if isinstance(module, _ConvNd):
        return 1
    raise OptionError(
        f"{layer}: the input channels of {type(module).__name__} are not known; expected a linear layer or a convolution. "
        "Measure the layer that reads it."
    )
