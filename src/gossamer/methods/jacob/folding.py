"""fold, freeze, finish: a network's convolutions and norms as FoldedLayers, and back as plain layers.

    fold     every layer with a batch norm behind it becomes a FoldedLayer, in place of the layer; an Identity takes the
             place of the norm
    freeze   the norms stop following the batches
    finish   every FoldedLayer becomes its plain layer with weight W_f in its format, and bias b_f, and every CurrentRange
             a Uniform: the same function, bit for bit, that the network has in eval mode

Layers whose weight carries a format, and norms without running statistics, stay as they are. The modules are changed in
place, the network stays the user's own. Fold before activation quantizers are attached or after; they see no difference.
Raises: ModelError when the network cannot be traced, or holds nothing to fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from ...errors import ModelError
from ...formats import Uniform, WeightFormat, attach, attached, detach, locate, parts_of
from ..norm_pairs import norm_pairs
from .current_range import CurrentRange
from .folded import FoldedLayer

PAPER = Uniform(bits=8)  # one scale per tensor, integers -127 to 127


def foldable(model: nn.Module, example: Any) -> dict[str, str]:
    """{path of the norm: path of the layer} of every pair that the traced graph shows and that can be folded."""
    return {
        norm: layer
        for norm, layer in norm_pairs(model, example).items()
        if getattr(model.get_submodule(norm), "running_mean", None) is not None
        and not parametrize.is_parametrized(model.get_submodule(norm))
        and not parametrize.is_parametrized(model.get_submodule(layer))
    }


def fold(
    model: nn.Module, example: Any, *, format: WeightFormat | None = PAPER, correction: bool = True
) -> dict[str, str]:
    """Fold every pair that the traced graph shows; {path of the norm: path of the layer}, for `fold_pairs`."""
    pairs = foldable(model, example)
    if not pairs:
        raise ModelError(
            "fold found no convolution or linear layer with a batch norm behind it. Fold before weights get a format, "
            "and do not fold twice."
        )
    fold_pairs(model, pairs, format=format, correction=correction)
    return pairs


def fold_pairs(
    model: nn.Module,
    pairs: Mapping[str, str],
    *,
    format: WeightFormat | None = PAPER,
    correction: bool = True,
) -> None:
    """Fold the given pairs: what `fold` did, on a fresh copy of the network."""
    for norm, layer in pairs.items():
        block = FoldedLayer(
            model.get_submodule(layer), model.get_submodule(norm), format=format, correction=correction
        )
        block.train(model.get_submodule(layer).training)
        model.set_submodule(norm, nn.Identity())
        model.set_submodule(layer, block.to(block.layer.weight.device))


def folded_layers(model: nn.Module) -> dict[str, FoldedLayer]:
    """The FoldedLayers by their path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, FoldedLayer)}


def freeze(model: nn.Module) -> None:
    """Freeze every FoldedLayer; again is no error."""
    for block in folded_layers(model).values():
        block.freeze()


@torch.no_grad()
def finish(model: nn.Module) -> list[str]:
    """Turn every FoldedLayer into its plain layer, and settle weights of a current range; the paths of the former."""
    for name, entry in list(attached(model).items()):
        if isinstance(entry.format, CurrentRange):
            latent = parts_of(model, name)[0].clone()
            module, leaf = locate(model, name)
            detach(module, leaf)
            getattr(module, leaf).data = latent
            attach(module, leaf, entry.format.settled())
    blocks = folded_layers(model)
    for path, block in blocks.items():
        layer = block.layer
        weight, bias = block.folded
        layer.weight = nn.Parameter(weight.clone())
        layer.bias = nn.Parameter(bias.clone())
        if block.format is not None:
            attach(layer, "weight", block.format)
        model.set_submodule(path, layer)
    return list(blocks)
