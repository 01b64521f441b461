"""Protect: leave float what a network cannot bear to lose.

    drop = accuracy(original) - accuracy(now), on the validation split, in points

While the drop is above `max_drop`, the most sensitive integer layer becomes float again: its weight gets the original
values, and its inputs are no longer rounded for its sake. Sensitivity is measured layer by layer, with that layer alone
made float: how much nearer the logits come to the original's, as a share of the error of the whole quantized network.

The table stands in the report under the stage's notes: {layer: share of the error}.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import formats, quantizers
from ..data import Data, Split
from ..errors import OptionError, StepError
from ..methods.float_twin import unround
from ..quantizers import Quantizer
from ..training import evaluate
from .base import Context, Edit, Step
from .calibrate import attach, described, inputs, rebuild


@dataclass(frozen=True, kw_only=True)
class Protect(Step):
    """Keep the loss of validation accuracy within `max_drop` points; samples: inputs that rank the layers.

    most: the largest share of layers that may become float, 0 to 1.
    """

    max_drop: float = 1.0
    samples: int = 128
    most: float = 0.5

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
        batches = list(inputs(context, self.samples, "Protect"))
        with quantizers.unquantized(model):
            calls = quantizers.record(model, (batches[0][:1],))
        layers = [
            name for name in quantizers.place(calls).layers if f"{name}.weight" in formats.attached(model)
        ]
        found = self._drop(model, split, data, target)
        context.notes["drop_points"] = found
        if found <= self.max_drop and not context.trial:
            return model
        shares = sensitivity(model, context.teacher, layers, batches)
        context.notes["sensitivity"] = shares
        ranked = sorted(shares, key=lambda name: -shares[name])
        limit = max(1, int(self.most * len(layers)))
        kept: list[str] = []
        for name in ranked[:limit]:
            kept.append(name)
            unround(model, [name])
            edit = without(model, kept, batches[0][:1])
            found = self._drop(model, split, data, target)
            if found <= self.max_drop or context.trial:
                break
        context.edits.append(edit)
        for name in kept:
            context.skip(
                f"{name}.weight", f"stays float: {100 * shares[name]:.0f} % of the error comes from it"
            )
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


@torch.no_grad()
def sensitivity(
    model: nn.Module, original: nn.Module, layers: Iterable[str], batches: list[Tensor]
) -> dict[str, float]:
    """By layer, the share of the squared error of the logits that goes away when it alone is float; may be negative."""
    model.eval()
    wanted = [original(batch) for batch in batches]
    whole = _error(model, batches, wanted)
    shares = {}
    for name in layers:
        trial = copy.deepcopy(model)
        unround(trial, [name])
        without(trial, [name], batches[0][:1])
        shares[name] = 1 - _error(trial, batches, wanted) / max(whole, 1e-30)
    return shares


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


def _error(model: nn.Module, batches: list[Tensor], wanted: list[Tensor]) -> float:
    return sum(
        float((model(batch) - target).double().square().sum())
        for batch, target in zip(batches, wanted, strict=True)
    )
