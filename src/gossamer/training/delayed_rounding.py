"""DelayedRounding: when a training run starts to round activations, and when its batch norms stand still.

    steps 0 .. quantize_from - 1      activations pass as floats; ranges with a momentum follow them (quantizers.Affine)
    steps quantize_from ..            activations are rounded
    steps freeze_from ..              folded layers normalize by their moving averages (methods.jacob)

Weights are rounded from the first step on. Steps are counted over all epochs, and the count is checkpointed, so a resumed
run has the right state. Quantizers are calibrated before the run.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1 (50,000 to 2 million steps without activation rounding); the
freeze: TensorFlow's `freeze_bn_delay`, 200,000 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer

from gossamer import quantizers
from gossamer.errors import OptionError
from gossamer.methods import jacob
from gossamer.training.callbacks import Callback


@dataclass(kw_only=True)
class DelayedRounding(Callback):
    """quantize_from, freeze_from: optimizer steps, from 0; freeze_from=None: norms follow the batches to the end."""

    quantize_from: int = 0
    freeze_from: int | None = None
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.quantize_from < 0 or (self.freeze_from is not None and self.freeze_from < 0):
            raise OptionError(
                f"DelayedRounding: quantize_from {self.quantize_from}, freeze_from {self.freeze_from}, "
                "expected steps from 0 on."
            )

    @classmethod
    def over(cls, steps: int, *, delay: float = 0.2, frozen: float = 0.3) -> Self:
        """For a run of `steps`: rounding starts after the part `delay`, norms stand still in the last part `frozen`."""
        for name, part in (("delay", delay), ("frozen", frozen)):
            if not 0 <= part <= 1:
                raise OptionError(f"DelayedRounding: {name} is {part}, expected a part from 0 to 1.")
        return cls(
            quantize_from=math.floor(steps * delay + 1e-9), freeze_from=math.ceil(steps * (1 - frozen) - 1e-9)
        )

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        self._set(model)

    def on_step_end(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.done += 1
        if self.done in (self.quantize_from, self.freeze_from):
            self._set(model)

    def _set(self, model: nn.Module) -> None:
        quantizers.set_state(model, "quantize" if self.done >= self.quantize_from else "off")
        if self.freeze_from is not None and self.done >= self.freeze_from:
            jacob.freeze(model)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = int(state["done"])
