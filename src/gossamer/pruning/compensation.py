"""Compensation: the next biases take up what removed units gave on average.

    y = sum_i V[:, i] * a_i + b        b += sum over removed i of (sum over the kernel of V[:, i]) mu_i,    mu_i = E a_i

Exact for units that are constant (a dead ReLU, gamma = 0 of a norm), away from zero-padded borders; otherwise the mean of
every output stays, and what is lost is the variance: the squared error of one layer's outputs never grows. The error of
the network may, when most of a layer goes at once without training: means of many removed units then drown the signal of
the few that stay (LeNet-5, conv2 and ip1 by l2, test error: 8.6 % -> 6.0 % with half of the units gone, 16 % -> 33 % with
70 %). `variance` is the criterion that fits it. A layer
without bias hands the term to the batch norm that stands alone behind it (running mean -= term), and gets a bias when
there is none. Call it on the whole network, right before the cut: what is removed then is still there.
Raises: OptionError when means are missing or do not fit.
Source: Ye, Lu, Lin, Wang, "Rethinking the smaller-norm-less-informative assumption in channel pruning", ICLR 2018,
arXiv:1802.00124 (constants behind gamma = 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .. import formats
from ..errors import OptionError
from .activations import readers
from .group import Choice, Group, Member


@dataclass(frozen=True)
class Compensation:
    """{parameter or buffer that took up a term: the term added to the outputs, float64 [O]}, and what else changed.

    added: layers that had no bias and have one now; skipped: {layer: why it got no term}.
    """

    terms: dict[str, Tensor] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def compensate_(
    model: nn.Module,
    groups: Iterable[Group],
    choice: Choice,
    means: Mapping[str, Tensor],
    *,
    norms: Mapping[str, str] | None = None,
) -> Compensation:
    """Change the biases behind every unit that the choice removes, in place.

    means: {layer: E of its input channels [C]}, as `layer_activations(...)[layer].mean`. norms: {layer: the batch norm
    that stands alone behind it} (`Evidence.norms`).
    """
    report = Compensation()
    terms: dict[str, Tensor] = {}
    for group in groups:
        if group.name not in choice:
            continue
        for layer, member in readers(model, group).items():
            module = model.get_submodule(layer)
            if isinstance(module, _ConvTransposeNd):
                report.skipped[layer] = "a transposed convolution gives a constant another sum at every place"
                continue
            gone = _columns_removed(member, choice[group.name])
            if bool(gone.any()):
                term = _term(model, layer, gone, means)
                terms[layer] = terms[layer] + term if layer in terms else term
    for layer, term in terms.items():
        had_bias = model.get_submodule(layer).bias is not None
        name = _add(model, layer, term, norms or {})
        report.terms[name] = term
        if name == f"{layer}.bias" and not had_bias:
            report.added.append(layer)
    return report


def scale_constant(
    model: nn.Module, group: Group, *, activation: Callable[[Tensor], Tensor] = torch.relu
) -> dict[str, Tensor]:
    """{layer: [C]}: what its input channels are when the norm's gamma is 0 everywhere: activation(beta).

    For network slimming; these are means that `compensate_` takes. For groups with one norm and units of one channel
    there, of which only activation, pooling and flattening lead to the readers; where several norms are added, set gamma
    to 0 and measure instead (`layer_activations`).
    """
    norms = [m for m in group.members if _is_scale(model, m) and bool((m.units >= 0).any())]
    if len(norms) != 1 or not torch.equal(norms[0].units.sort().values, torch.arange(group.size)):
        raise OptionError(
            f"{group.name}: the constant behind a norm is known for one norm with one channel per unit; found {len(norms)} "
            "norms. Set gamma of the units to 0 and measure their means (layer_activations)."
        )
    shift = model.get_submodule(norms[0].name.rpartition(".")[0]).bias
    assert isinstance(shift, Tensor)
    constants = torch.zeros(group.size, dtype=torch.float64)
    constants[norms[0].units.cpu()] = activation(shift.detach().double()).cpu()
    found = {}
    for layer, member in readers(model, group).items():
        units = member.units.cpu()
        column = torch.where(units >= 0, constants[units.clamp_min(0)], 0.0)
        found[layer] = column.repeat(_input_channels(model.get_submodule(layer)) // len(column))
    return found


def _is_scale(model: nn.Module, member: Member) -> bool:
    path, _, leaf = member.name.rpartition(".")
    return leaf == "weight" and isinstance(model.get_submodule(path), _NormBase)


def _columns_removed(member: Member, kept: Tensor) -> Tensor:
    units = member.units.cpu()
    return (units >= 0) & ~kept.cpu()[units.clamp_min(0)]


def _input_channels(module: nn.Module) -> int:
    assert isinstance(module, (nn.Linear, _ConvNd))
    return module.in_channels if isinstance(module, _ConvNd) else module.in_features


def _term(model: nn.Module, layer: str, gone: Tensor, means: Mapping[str, Tensor]) -> Tensor:
    """sum over removed columns of V mu, float64 [O]."""
    module = model.get_submodule(layer)
    channels = _input_channels(module)
    mean = means.get(layer)
    if mean is None or mean.shape != (channels,):
        received = "none" if mean is None else f"shape {tuple(mean.shape)}"
        raise OptionError(
            f"{layer}: compensation needs the mean of each of its {channels} input channels; received {received}. Measure "
            "them with layer_activations."
        )
    weight = formats.plain_parameters(model)[f"{layer}.weight"].detach().double()
    convolutions = int(module.groups) if isinstance(module, _ConvNd) else 1
    wide = weight.reshape(convolutions, len(weight) // convolutions, len(gone), -1).sum(dim=3)
    removed = mean.to(weight).reshape(convolutions, len(gone)) * gone.to(weight)
    return (wide @ removed[:, :, None]).reshape(-1)


def _add(model: nn.Module, layer: str, term: Tensor, norms: Mapping[str, str]) -> str:
    """Add the term to the outputs of the layer; the name of the tensor that took it up."""
    module = model.get_submodule(layer)
    bias = module.bias
    if isinstance(bias, Tensor):
        bias.copy_(bias.double() + term)
        return f"{layer}.bias"
    norm = model.get_submodule(norms[layer]) if layer in norms else None
    if isinstance(norm, _NormBase) and norm.running_mean is not None:
        norm.running_mean.copy_(norm.running_mean.double() - term)
        return f"{norms[layer]}.running_mean"
    module.register_parameter(
        "bias", nn.Parameter(term.to(formats.plain_parameters(model)[f"{layer}.weight"]))
    )
    return f"{layer}.bias"
