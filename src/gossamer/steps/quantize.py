"""Quantize: weights on a uniform grid, with a scale per tensor, output channel or group of inputs; codes are entropy coded.

By bits or step, every weight is rounded to the nearest point. By `rate`, the steps of all layers are chosen together
for a number of coded bits per weight, and codes are chosen so that layers keep their outputs (methods.rate_distortion).
Training that follows passes the rounding (straight-through estimator). Pruned weights stay exactly zero.

Weights of 4 bits in groups of 32 inputs, activations left float, are the usual way to store transformers; ONNX Runtime
multiplies with them packed (export.nbits). With `RoundWeights` behind it this is GPTQ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import formats
from ..errors import OptionError, StepError
from ..formats import Dense, MaskedUniform, Sparse, Uniform
from ..methods import rate_distortion
from .base import Context, Step, choose, per_layer

WITHIN = 0.95  # of the range of codes that the largest weight may take when rate chooses the step


@dataclass(frozen=True, kw_only=True)
class Quantize(Step):
    """Uniform grids: bits per weight, or the step of the grid itself; each one number or {layer: number}.

    rate: coded bits per weight over all chosen layers, in place of step; bits then limits the range of the codes, as integer
    kernels need (8); calibration: training inputs (no labels) it may look at. granularity: "tensor", "channel" or "group";
    group: consecutive inputs that share a scale then; fit: "max" (reach the largest weight) or "mse".
    """

    attaches: ClassVar[bool] = True

    bits: int | Mapping[str, int] | None = None
    step: float | Mapping[str, float] | None = None
    rate: float | None = None
    granularity: str = "tensor"
    group: int = 32
    fit: str = "mse"
    calibration: int = 1024
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.rate is not None and (isinstance(self.bits, Mapping) or self.step is not None):
            raise OptionError(
                "Quantize: rate chooses the steps itself; give it without step, and with one bits."
            )
        if self.rate is not None and not 0 < self.rate <= 16:
            raise OptionError(
                f"Quantize: rate is in coded bits per weight, 0 < rate <= 16; received {self.rate!r}."
            )
        if self.calibration < 1:
            raise OptionError(
                f"Quantize: calibration needs at least one input; received {self.calibration!r}."
            )
        if self.rate is None and self.bits is None and self.step is None:
            raise OptionError("Quantize needs one of bits, step, rate; received none. Try bits=8.")
        for bits in self.bits.values() if isinstance(self.bits, Mapping) else [self.bits]:
            for step in self.step.values() if isinstance(self.step, Mapping) else [self.step]:
                if self.rate is None:
                    self._grid(bits, step, self.granularity)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        chosen = choose(model, self.layers, self.skip, context)
        for name in [n for n, weight in chosen.items() if weight.numel() < 2]:
            context.skip(name, "a single number needs no grid")
            del chosen[name]
        if self.rate is not None:
            return self._for_rate(model, chosen, context)
        known = formats.plain_parameters(model)
        bits = per_layer(self.bits, chosen, "Quantize", known=known)
        steps = per_layer(self.step, chosen, "Quantize", known=known)
        present, touched = formats.attached(model), 0
        for name, weight in chosen.items():
            if name not in bits or name not in steps:
                context.skip(name, "no bits or step given for this layer")
                continue
            format = present[name].format if name in present else None
            pruned = isinstance(format, Sparse) and type(format.values) is Dense
            whole = weight.dim() > 1 and (format is None or pruned)  # else what is rounded has no rows
            grid = self._grid(bits[name], steps[name], self.granularity if whole else "tensor")
            if pruned and grid.granularity != "tensor":
                module, leaf = formats.locate(model, name)
                formats.detach(module, leaf)
                formats.attach(module, leaf, MaskedUniform(**vars(grid)))
            else:
                formats.refine(model, name, grid)
            touched += 1
        if not touched:
            raise StepError("Quantize touched nothing. Name the layers with layers=[...].")
        return model

    def _grid(self, bits: int | None, step: float | None, granularity: str) -> Uniform:
        kept = (
            "bfloat16" if granularity == "group" else "float32"
        )  # a scale for every 32 weights is worth rounding
        return Uniform(
            bits=bits, step=step, granularity=granularity, group=self.group, fit=self.fit, scale_dtype=kept
        )

    def _for_rate(self, model: nn.Module, chosen: dict[str, Tensor], context: Context) -> nn.Module:
        present = formats.attached(model)
        for name in [n for n in chosen if n in present]:
            context.skip(
                name,
                f"already has the format {type(present[name].format).__name__}; rate needs plain weights",
            )
            del chosen[name]
        if not chosen:
            raise StepError("Quantize by rate found no weight without a format. Put it first, or use bits.")
        inputs = self._inputs(context)
        model.eval()
        sensitivity = rate_distortion.sensitivities(model, chosen, inputs[:2])
        steps = rate_distortion.steps_for(chosen, sensitivity, self.rate or 0.0)
        if self.bits is not None:
            assert isinstance(self.bits, int)
            widest = WITHIN * (2 ** (self.bits - 1) - 1)  # rounding for the outputs moves codes a little
            steps = {
                name: max(step, float(chosen[name].detach().abs().max()) / widest)
                for name, step in steps.items()
            }
        context.notes["steps"] = steps
        for name, weight in chosen.items():
            module, leaf = formats.locate(model, name)
            values, shift = rate_distortion.quantize_layer(
                model, module, weight.detach(), steps[name], inputs
            )
            weight.data = values
            if shift is not None and isinstance(module.bias, Tensor):
                module.bias.data += shift
            bits = self.bits if isinstance(self.bits, int) else None
            formats.attach(module, leaf, Uniform(bits=bits, step=steps[name]))
        return model

    def _inputs(self, context: Context) -> list[Tensor]:
        """Calibration batches of 256 from the training split, the same for the same seed."""
        data = context.need_data("Quantize by rate")
        count = min(8 if context.trial else self.calibration, len(data.train))
        rows = np.sort(np.random.default_rng(context.seed).choice(len(data.train), count, replace=False))
        return [
            torch.from_numpy(data.preprocess(data.train.inputs[rows[start : start + 256]]))
            for start in range(0, count, 256)
        ]
