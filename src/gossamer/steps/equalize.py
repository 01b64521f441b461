"""Equalize: balance the ranges of neighbouring layers, so that one scale per tensor serves all channels.

The function of the float network stays as it is (methods.cross_layer_equalization). Norms are folded first. It matters for
scales per tensor and for depthwise networks; with scales per channel it mostly helps the activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import OptionError
from ..methods.cross_layer_equalization import equalize, replace_relu6_
from .base import Context, Edit, Step
from .calibrate import can_freeze, inputs
from .freeze_norms import FreezeNorms


@dataclass(frozen=True, kw_only=True)
class Equalize(Step):
    """Scale channels between layers; relu6: "skip" leaves pairs with a ReLU6 between them, "replace" makes it ReLU."""

    relu6: str = "skip"

    def __post_init__(self) -> None:
        if self.relu6 not in ("skip", "replace"):
            raise OptionError(f"Equalize: relu6 is 'skip' or 'replace'; received {self.relu6!r}.")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        example = next(inputs(context, 8, "Equalize"))
        if can_freeze(model):
            model = FreezeNorms().apply(model, context)
        done = equalize(model, example, relu6=self.relu6)
        for name, reason in done.skipped.items():
            context.skip(name, reason)
        context.edits.append({"relu6": list(done.replaced)})
        context.notes["pairs"] = len(done.pairs)
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        model = FreezeNorms().rebuild(model, [edit for edit in edits if "norm" in edit])
        replaced: list[Mapping[str, Any]] = [edit for edit in edits if "relu6" in edit]
        for edit in replaced:
            replace_relu6_(model, edit["relu6"])
        return model
