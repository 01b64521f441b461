"""DelayedRounding: when a training run starts to round activations, and when its batch norms stand still.

    epochs 0 .. quantize_from - 1      activations pass as floats; their quantizers are off
    epochs quantize_from ..            activations are rounded
    epochs freeze_from ..              folded layers normalize by their moving averages (methods.jacob)

Weights are rounded from the first step on. The state is set from the number of the epoch alone, so a resumed run has the
right one. Quantizers are calibrated before the run; an Affine with `momentum` then follows the activations.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1 (50,000 to 2 million steps without activation rounding); the
freeze: TensorFlow's `freeze_bn_delay`, 200,000 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from torch import nn

from gossamer import quantizers
from gossamer.errors import OptionError
from gossamer.methods import jacob
from gossamer.training.callbacks import Callback


@dataclass(frozen=True, kw_only=True)
class DelayedRounding(Callback):
    """quantize_from, freeze_from: epochs, from 0; freeze_from=None: norms follow the batches to the end."""

    quantize_from: int = 1
    freeze_from: int | None = None

    def __post_init__(self) -> None:
        if self.quantize_from < 0 or (self.freeze_from is not None and self.freeze_from < 0):
            raise OptionError(
                f"DelayedRounding: quantize_from {self.quantize_from}, freeze_from {self.freeze_from}, "
                "expected epochs from 0 on."
            )

    @classmethod
    def over(cls, epochs: int, *, delay: int = 1, frozen: float = 0.3) -> Self:
        """For a run of `epochs`: rounding starts after `delay` of them, norms stand still in the last part `frozen`."""
        if not 0 <= frozen <= 1:
            raise OptionError(f"DelayedRounding: frozen is {frozen}, expected a part from 0 to 1.")
        return cls(quantize_from=delay, freeze_from=math.ceil(epochs * (1 - frozen) - 1e-9))

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        quantizers.set_state(model, "quantize" if epoch >= self.quantize_from else "off")
        if self.freeze_from is not None and epoch >= self.freeze_from:
            jacob.freeze(model)
