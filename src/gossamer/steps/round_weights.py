"""RoundWeights: choose for each weight on a grid whether it goes up or down, so that layers keep their outputs.

method: "adaround" learns the rounding by gradient (methods.adaround), "gptq" decides column by column from the second
moments of the inputs (methods.gptq). Layers are rounded in the order in which they run, each on the inputs that the layers
before it, already rounded, give. The grids stay; no labels are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .. import formats
from ..errors import FormatError, OptionError, StepError, nearest
from ..methods.adaround import adaround
from ..methods.float_twin import float_twin
from ..methods.gptq import gptq
from ..methods.layer_inputs import called
from .base import Context, Step, layer_paths
from .calibrate import inputs

METHODS = ("adaround", "gptq")


@dataclass(frozen=True, kw_only=True)
class RoundWeights(Step):
    """Round again what Quantize put on grids; steps: of gradient descent per layer (adaround); skip: names or globs."""

    method: str = "gptq"
    samples: int = 512
    steps: int = 1000
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(
                f"RoundWeights: unknown method {self.method!r}. {nearest(str(self.method), METHODS)}"
            )
        for name in ("samples", "steps"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise OptionError(f"RoundWeights: {name} is {getattr(self, name)!r}, expected at least 1.")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        batches = list(inputs(context, self.samples, "RoundWeights"))
        left_out = layer_paths(self.skip, model)
        layers = [name.rpartition(".")[0] for name in formats.attached(model) if name.endswith("weight")]
        order = called(model, [layer for layer in layers if layer not in left_out], batches[:1])
        reference = float_twin(model)
        touched = 0
        for layer in order:
            try:
                if self.method == "gptq":
                    gptq(model, f"{layer}.weight", batches, seed=context.seed)
                else:
                    steps = 2 if context.trial else self.steps
                    adaround(model, reference, f"{layer}.weight", batches, steps=steps, seed=context.seed)
            except FormatError as error:
                context.skip(f"{layer}.weight", str(error))
                continue
            touched += 1
        if not touched:
            raise StepError("RoundWeights found no weight on a grid. Put it after Quantize.")
        return model
