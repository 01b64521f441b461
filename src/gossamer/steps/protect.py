"""Protect: leave float what a network cannot bear to lose.

    drop = accuracy(original) - accuracy(now), on the validation split, in points

While the drop is above `max_drop`, the most sensitive integer layer becomes float again: its weight gets the original
values, and its inputs are no longer rounded for its sake. Sensitivity is the error of the logits with that layer alone
rounded (steps.sensitivity). With `scan`, every layer is measured even where nothing is lost, by weights, by activations
and by both.

The table stands in the report under "sensitivity".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import formats, quantizers
from ..data import Data, Split
from ..errors import OptionError, StepError
from ..methods.float_twin import unround
from ..quantizers import Quantizer
from ..training import evaluate
from .base import Context, Edit, Step
from .calibrate import attach, described, rebuild
from .sensitivity import scan


@dataclass(frozen=True, kw_only=True)
class Protect(Step):
    """Keep the loss of validation accuracy within `max_drop` points; samples: validation inputs that rank the layers.

    most: the largest share of layers that may become float, 0 to 1. scan: measure every layer, whatever the loss.
    """

    max_drop: float = 1.0
    samples: int = 128
    most: float = 0.5
    scan: bool = False

    def __post_init__(self) -> None:
        if not self.max_drop >= 0:
            raise OptionError(f"Protect: max_drop is in points, at least 0; received {self.max_drop!r}.")
        if not (isinstance(self.samples, int) and self.samples >= 1):
            raise OptionError(f"Protect: samples is {self.samples!r}, expected at least 1.")
        if not 0 < self.most <= 1:
            raise OptionError(
                f"Protect: most is a share of the layers, 0 < most <= 1; received {self.most!r}."
            )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if not quantizers.quantized(model):
            raise StepError("Protect found no quantizers. Put it after Calibrate and Quantize.")
        if context.teacher is None:
            raise StepError(
                "Protect: no original network to compare with. Run it through gs.apply or a recipe."
            )
        data = context.need_data("Protect")
        split = data.validation.subset(range(8)) if context.trial else data.validation
        target = evaluate(context.teacher, split, data.preprocess).accuracy
        x = torch.from_numpy(data.batch(1))
        with quantizers.unquantized(model):
            placement = quantizers.place(quantizers.record(model, (x,)))
        layers = [name for name in placement.layers if f"{name}.weight" in formats.attached(model)]
        found = self._drop(model, split, data, target)
        context.notes["drop_points"] = found
        if found <= self.max_drop and not context.trial and not self.scan:
            return model
        few = split if context.trial else _some(split, self.samples, context.seed)
        rows = scan(model, layers, placement.places, few, data, apart=self.scan)
        context.notes["sensitivity"] = [row.to_dict() for row in rows]
        if found <= self.max_drop and not context.trial:
            return model
        errors = {row.layer: row.both for row in rows}
        ranked = sorted(errors, key=lambda name: -errors[name])
        limit = max(1, int(self.most * len(layers)))
        kept: list[str] = []
        for name in ranked[:limit]:
            kept.append(name)
            unround(model, [name])
            edit = without(model, kept, x)
            found = self._drop(model, split, data, target)
            if found <= self.max_drop or context.trial:
                break
        context.edits.append(edit)
        for name in kept:
            reason = (
                f"stays float: rounded alone, it changes the outputs by {100 * errors[name] ** 0.5:.2g} %"
            )
            context.skip(f"{name}.weight", reason)
        context.notes["drop_points"] = found
        if found > self.max_drop and not context.trial:
            raise StepError(
                f"Protect: {len(kept)} of {len(layers)} layers are float again, and the loss is still {found:.2f} points "
                f"(max_drop {self.max_drop}). Allow more layers (most), more bits, or train (QuantizeAware)."
            )
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        return rebuild(model, edits)

    @staticmethod
    def _drop(model: nn.Module, split: Split, data: Data, target: float) -> float:
        return 100 * (target - evaluate(model, split, data.preprocess).accuracy)


def _some(split: Split, count: int, seed: int) -> Split:
    """`count` samples of the split, the same for the same seed."""
    rows = np.random.default_rng(seed).choice(len(split), min(count, len(split)), replace=False)
    return split.subset(np.sort(rows))


def without(model: nn.Module, layers: Iterable[str], x: Tensor) -> Edit:
    """Place the quantizers again with `layers` float, keeping the grids of those that stay; what was done, as an edit."""
    before = quantizers.quantizers(model)
    states = {name: quantizer.state_dict() for name, quantizer in before.items()}
    options = {name: (type(quantizer).__name__, _options(quantizer)) for name, quantizer in before.items()}
    quantizers.detach(model)
    placement = quantizers.place(quantizers.record(model, (x,)), skip=set(layers))
    known = tuple(place for place in placement.places if place.name in before)
    placement = quantizers.Placement(known, placement.layers, placement.skipped, placement.kinds)
    edit = described(placement, {place.name: options[place.name] for place in known})
    attach(model, edit)
    for name, quantizer in quantizers.quantizers(model).items():
        quantizer.load_state_dict(states[name])
    return edit


def _options(quantizer: Quantizer) -> dict[str, object]:
    """What makes another quantizer of the same kind; its numbers come with its state."""
    found: dict[str, object] = {"bits": quantizer.bits}
    if hasattr(quantizer, "symmetric"):
        found["symmetric"] = quantizer.symmetric
    return found
