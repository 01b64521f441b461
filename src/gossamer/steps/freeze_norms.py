"""FreezeNorms: batch norms vanish into the layer before them, or become a scale and a shift per channel.

    fold      w' = w * a, b' = (b - mean) * a + beta,   a = gamma / sqrt(var + eps)      C stored numbers, of 4C
    affine    y = x * a + (beta - mean * a)                                              2C stored numbers, of 4C

The function at inference is unchanged. A norm is folded when a convolution or linear layer feeds it alone and the rows
of that layer's weight can be rescaled in its format (formats.rescale); otherwise it becomes an Affine block. What feeds
what is read off the traced graph (torch.export). The new biases, scales and shifts can be trained, rounded and quantized
like any weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from .. import formats
from ..blocks import Affine
from ..errors import ModelError, StepError
from ..methods.norm_pairs import norm_pairs
from .base import Context, Edit, Step


@dataclass(frozen=True, kw_only=True)
class FreezeNorms(Step):
    """Remove every BatchNorm that keeps running statistics; fold: into the layer before it, where that is possible."""

    fold: bool = True

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        norms = {path: m for path, m in model.named_modules() if isinstance(m, _BatchNorm)}
        feeders = _feeders(model, context) if self.fold and norms else {}
        found = 0
        for path, norm in norms.items():
            if norm.running_mean is None:
                context.skip(path, "keeps no running statistics")
                continue
            if parametrize.is_parametrized(norm):
                context.skip(
                    path, "its scale or shift already carries a format; freeze norms before rounding them"
                )
                continue
            affine, layer = Affine.from_norm(norm), feeders.get(path)
            edit: Edit = {"norm": path, "channels": norm.num_features, "layer": layer}
            _edit(model, edit)
            if layer is None:
                model.get_submodule(path).load_state_dict(affine.state_dict())
            else:
                _fold(model, layer, affine)
            context.edits.append(edit)
            found += 1
        if not found:
            raise StepError("FreezeNorms found no batch norm with running statistics. Drop the step.")
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        for edit in edits:
            _edit(model, edit)
        return model


def _edit(model: nn.Module, edit: Edit) -> None:
    """The change of modules alone: the norm becomes an Affine, or an Identity behind a layer with a bias."""
    path, layer = edit["norm"], edit["layer"]
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, Affine(edit["channels"]) if layer is None else nn.Identity())
    if layer is not None and dict(model.get_submodule(layer).named_parameters()).get("bias") is None:
        model.get_submodule(layer).register_parameter("bias", nn.Parameter(torch.zeros(edit["channels"])))


@torch.no_grad()
def _fold(model: nn.Module, layer: str, affine: Affine) -> None:
    bias = model.get_submodule(layer).bias
    assert isinstance(bias, Tensor)
    formats.rescale(model, f"{layer}.weight", affine.scale)
    bias.data = (bias.double() * affine.scale.double() + affine.shift.double()).float()


def _feeders(model: nn.Module, context: Context) -> dict[str, str]:
    """{norm: the layer it folds into}; empty without an example or data, or when the model cannot be traced."""
    example = context.example
    if example is None and context.data is not None:
        example = torch.from_numpy(context.data.batch(2))
    if example is None:
        return {}
    try:
        pairs = norm_pairs(model, example)
    except ModelError as error:
        context.skip("*", f"norms are not folded: {error}")
        return {}
    return {norm: layer for norm, layer in pairs.items() if formats.can_rescale(model, f"{layer}.weight")}
