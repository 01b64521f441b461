"""FreezeNorms: batch norms become a scale and a shift per channel, 2C stored numbers instead of 4C.

The function at inference is unchanged. Scale and shift can then be trained, rounded and quantized like any weight.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from ..blocks import Affine
from ..errors import StepError
from .base import Context, Edit, Step


@dataclass(frozen=True, kw_only=True)
class FreezeNorms(Step):
    """Replace every BatchNorm that keeps running statistics by an Affine block."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        found = 0
        for path, module in list(model.named_modules()):
            if not isinstance(module, _BatchNorm):
                continue
            if module.running_mean is None:
                context.skip(path, "keeps no running statistics")
                continue
            if parametrize.is_parametrized(module):
                context.skip(
                    path, "its scale or shift already carries a format; freeze norms before rounding them"
                )
                continue
            _replace(model, path, Affine.from_norm(module))
            context.edits.append({"norm": path, "channels": module.num_features})
            found += 1
        if not found:
            raise StepError("FreezeNorms found no batch norm with running statistics. Drop the step.")
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        for edit in edits:
            _replace(model, edit["norm"], Affine(edit["channels"]))
        return model


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
