"""TrainSparse: train under a penalty that makes whole groups of weights exactly zero.

    network-slimming       |gamma| of every batch norm                        options: penalty
    structured-sparsity    filters, channels, shapes, kernels, whole layers   options: filters, channels, shapes, kernels, depth
    less-is-more           neurons with their bias, and low rank              options: group, low_rank, of, every

After each step of the optimizer the proximal operator of the penalty runs (methods.proximal), so zeros are exact and need
no threshold; it needs SGD. Layers are all convolutions and linear layers but the last, unless named. What became zero is
removed by PruneChannels(threshold=0), with criterion "scale" for network slimming.
Sources: Liu et al., ICCV 2017, arXiv:1708.06519; Wen et al., NIPS 2016, arXiv:1608.03665; Zhou, Alvarez, Porikli, ECCV
2016.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..errors import OptionError, StepError, nearest
from ..methods.less_is_more import LessIsMore
from ..methods.network_slimming import ShrinkScales
from ..methods.structured_sparsity import StructuredSparsity
from ..training import AfterStep
from .base import Context, choose
from .train import Finetune

PENALTIES: dict[str, Callable[..., Any]] = {
    "network-slimming": ShrinkScales,
    "structured-sparsity": StructuredSparsity,
    "less-is-more": LessIsMore,
}


@dataclass(frozen=True, kw_only=True)
class TrainSparse(Finetune):
    """Train with a sparse penalty; penalty: a name, `strength`: its options; layers, skip: names or globs."""

    penalty: str = "network-slimming"
    strength: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()
    optimizer: str = "sgd"
    lr: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty not in PENALTIES:
            raise OptionError(
                f"TrainSparse: unknown penalty {self.penalty!r}. {nearest(str(self.penalty), PENALTIES)}"
            )
        if self.optimizer != "sgd":
            raise OptionError(
                f"TrainSparse: a proximal step needs optimizer 'sgd', which has one step size; received {self.optimizer!r}."
            )
        known = set(inspect.signature(PENALTIES[self.penalty]).parameters) - {"layers"}
        for name in self.strength:
            if name not in known:
                raise OptionError(
                    f"TrainSparse: {self.penalty} has no option {name!r}. {nearest(str(name), known)}"
                )
        self._prox(["layer"])

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if self.epochs == 0:
            raise StepError("TrainSparse with epochs=0 would touch nothing. Drop the step, or train longer.")
        names = [name.removesuffix(".weight") for name in choose(model, self.layers, self.skip, context)]
        names = names[:-1] if self.layers is None else names
        prox = self._prox(names)
        context.train(model, "trainsparse", **self.options(context), callbacks=[AfterStep(prox)])
        return model

    def _prox(self, layers: Sequence[str]) -> Any:
        make = PENALTIES[self.penalty]
        return (
            make(**self.strength)
            if self.penalty == "network-slimming"
            else make(layers=layers, **self.strength)
        )
