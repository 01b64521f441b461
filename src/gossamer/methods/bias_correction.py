"""Bias correction: a bias takes up the mean shift that rounded weights and inputs give to its layer's outputs.

    b -= mean(W_q x_q + b) - mean(W x + b_float)         per output channel, over samples and positions

x_q comes from the quantized network itself, with the layers before it already corrected: the layers are taken in the
order in which they run, and on the calibration data each then has the means of the float network. Run it once, after the
weights are final; re-estimating batch norms as well would count the same shift twice.
Source: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization and bias
correction", ICCV 2019, arXiv:1906.04721, section 4.2 and appendix D (the empirical form).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import formats
from .layer_inputs import Batch, called, moments

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True)
class BiasCorrection:
    """What was added to each bias, {parameter name: float64 [O]}, and {layer: why it was left alone}."""

    shifts: dict[str, Tensor] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def correct_biases(
    model: nn.Module,
    reference: nn.Module,
    batches: Sequence[Batch],
    *,
    layers: Sequence[str] | None = None,
) -> BiasCorrection:
    """Correct the biases of `layers` (paths; None: all linear layers and convolutions with a format), in place.

    reference: the float network with the same names, left as it is.
    Raises: OptionError for a layer that one of the networks lacks.
    """
    report = BiasCorrection()
    chosen = list(_formatted(model) if layers is None else layers)
    running = called(model, chosen, batches)
    for layer in chosen:
        if layer not in running:
            report.skipped[layer] = "the network never calls it"
    corrected = []
    for layer in running:
        reason = _unfit(model.get_submodule(layer))
        if reason:
            report.skipped[layer] = reason
        else:
            corrected.append(layer)
    if not corrected:
        return report
    aims = moments(reference, corrected, batches)
    for layer in corrected:
        shift = aims[layer].mean - moments(model, [layer], batches)[layer].mean
        bias = model.get_submodule(layer).bias
        assert isinstance(bias, Tensor)
        with torch.no_grad():
            bias.copy_(bias.double() + shift)
        report.shifts[f"{layer}.bias"] = shift
    return report


def _formatted(model: nn.Module) -> list[str]:
    paths = [name.removesuffix(".weight") for name in formats.attached(model) if name.endswith(".weight")]
    return [path for path in paths if isinstance(model.get_submodule(path), LAYERS)]


def _unfit(module: nn.Module) -> str:
    """Why a layer's bias cannot be corrected, or nothing."""
    if not isinstance(module, LAYERS):
        return f"{type(module).__name__} is no linear layer or convolution"
    if module.bias is None:
        return "it has no bias; fold the norms first (FreezeNorms)"
    if parametrize.is_parametrized(module, "bias"):
        return "its bias carries a format; correct biases before they are rounded"
    return ""
