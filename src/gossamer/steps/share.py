"""Share: every surviving weight becomes one of 2^bits values per layer (k-means weight sharing).

The codes stay; the values are trained by what follows (Finetune).
Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, arXiv:1510.00149, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .. import formats
from ..errors import StepError
from ..formats import Codebook
from .base import Context, Step, choose, per_layer


@dataclass(frozen=True, kw_only=True)
class Share(Step):
    """Codebooks of 2^bits values; bits is one number or {layer: number}; init: linear, density, forgy or optimal."""

    attaches: ClassVar[bool] = True

    bits: int | Mapping[str, int] = 5
    init: str = "linear"
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        for bits in self.bits.values() if isinstance(self.bits, Mapping) else [self.bits]:
            Codebook(bits=bits, init=self.init)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        chosen = choose(model, self.layers, self.skip, context)
        bits = per_layer(self.bits, chosen, "Share", known=formats.plain_parameters(model))
        touched = 0
        for name, weight in chosen.items():
            if name not in bits:
                context.skip(name, "no bits given for this layer")
            elif weight.numel() <= 2 ** bits[name]:
                context.skip(
                    name, f"{weight.numel()} weights are not more than {2 ** bits[name]} shared values"
                )
            else:
                formats.refine(model, name, Codebook(bits=bits[name], init=self.init, seed=context.seed))
                touched += 1
        if not touched:
            raise StepError("Share touched nothing. Use fewer bits, or name the layers with layers=[...].")
        return model
