"""CorrectBias: rounding shifts the mean of a layer's outputs; its bias takes the shift back (methods.bias_correction)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..errors import OptionError, StepError
from ..methods.bias_correction import correct_biases
from ..methods.float_twin import float_twin
from .base import Context, Step
from .calibrate import inputs


@dataclass(frozen=True, kw_only=True)
class CorrectBias(Step):
    """Correct the biases of all rounded layers, in the order in which they run; samples: training inputs to measure on."""

    samples: int = 512

    def __post_init__(self) -> None:
        if not (isinstance(self.samples, int) and self.samples >= 1):
            raise OptionError(f"CorrectBias: samples is {self.samples!r}, expected at least 1.")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        done = correct_biases(model, float_twin(model), list(inputs(context, self.samples, "CorrectBias")))
        for name, reason in done.skipped.items():
            context.skip(name, reason)
        if not done.shifts and not done.skipped:
            raise StepError("CorrectBias found no rounded layer. Put it after Quantize.")
        return model
