"""Quantize: weights on a uniform grid, with a scale per tensor or per output channel; codes are entropy coded.

Training that follows passes the rounding (straight-through estimator). Pruned weights stay exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .. import formats
from ..errors import StepError
from ..formats import Sparse, Uniform
from .base import Context, Step, choose, per_layer


@dataclass(frozen=True, kw_only=True)
class Quantize(Step):
    """Uniform grids: bits per weight, or the step of the grid itself; each one number or {layer: number}.

    granularity: "tensor" or "channel"; fit: "max" (reach the largest weight) or "mse" (least squared error).
    """

    attaches: ClassVar[bool] = True

    bits: int | Mapping[str, int] | None = 8
    step: float | Mapping[str, float] | None = None
    granularity: str = "tensor"
    fit: str = "mse"
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        for bits in self.bits.values() if isinstance(self.bits, Mapping) else [self.bits]:
            for step in self.step.values() if isinstance(self.step, Mapping) else [self.step]:
                Uniform(bits=bits, step=step, granularity=self.granularity, fit=self.fit)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        chosen = choose(model, self.layers, self.skip, context)
        bits, steps = per_layer(self.bits, chosen, "Quantize"), per_layer(self.step, chosen, "Quantize")
        present, touched = formats.attached(model), 0
        for name, weight in chosen.items():
            if name not in bits or name not in steps:
                context.skip(name, "no bits or step given for this layer")
                continue
            if weight.numel() < 2:
                context.skip(name, "a single number needs no grid")
                continue
            sparse = name in present and isinstance(present[name].format, Sparse)
            granularity = "tensor" if sparse or weight.dim() < 2 else self.granularity
            inner = Uniform(bits=bits[name], step=steps[name], granularity=granularity, fit=self.fit)
            formats.refine(model, name, inner)
            touched += 1
        if not touched:
            raise StepError("Quantize touched nothing. Name the layers with layers=[...].")
        return model
