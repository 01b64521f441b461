"""Prune: remove weights of small magnitude, in one round or in several with training between them.

Survivors keep their trained values. After the step every pruned weight carries the format `Sparse`, so nothing
that follows can revive it. Biases and norms are not touched.
Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections", NIPS 2015, arXiv:1506.02626.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import formats
from ..errors import OptionError, StepError, nearest
from ..formats import Dense, Sparse
from ..pruning import CRITERIA, by_fraction, by_quality, globally, sparsities
from .base import Context, choose, per_layer
from .train import Finetune


@dataclass(frozen=True, kw_only=True)
class Prune(Finetune):
    """Zero the least important weights.

    Exactly one of: sparsity (fraction of zeros), density (fraction kept), each one number or {layer: number};
    or quality (threshold = quality * std of the layer's living weights), one number or {layer: number}.
    scope: "layer", or "global" for one ranking over all layers (sparsity or density as one number).
    rounds of pruning, spread by `rounds_schedule` (one-shot, iterative, cubic); after each, `epochs` of training
    with the options of Finetune. criterion: magnitude, scaled-magnitude, layer-adaptive or random.
    reinit: redraw the survivors before training (the paper's control; worse on purpose).
    """

    attaches: ClassVar[bool] = True

    sparsity: float | Mapping[str, float] | None = None
    density: float | Mapping[str, float] | None = None
    quality: float | Mapping[str, float] | None = None
    scope: str = "layer"
    criterion: str = "magnitude"
    rounds: int = 1
    rounds_schedule: str = "iterative"
    last_epochs: int | None = None
    reinit: bool = False
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()
    epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [n for n in ("sparsity", "density", "quality") if getattr(self, n) is not None]
        if len(given) != 1:
            raise OptionError(
                f"Prune needs exactly one of sparsity, density, quality; received {', '.join(given) or 'none'}."
            )
        for value in _values(self.sparsity):
            if not 0 <= value < 1:
                raise OptionError(
                    f"Prune: sparsity is the fraction of zeros, 0 <= sparsity < 1; received {value!r}."
                )
        for value in _values(self.density):
            if not 0 < value <= 1:
                raise OptionError(
                    f"Prune: density is the fraction kept, 0 < density <= 1; received {value!r}."
                )
        if self.scope not in ("layer", "global"):
            raise OptionError(f"Prune: scope is 'layer' or 'global'; received {self.scope!r}.")
        if self.scope == "global" and (
            self.quality is not None or isinstance(self.sparsity or self.density, Mapping)
        ):
            raise OptionError("Prune: scope 'global' takes one number for sparsity or density.")
        if self.criterion not in CRITERIA:
            raise OptionError(
                f"Prune: unknown criterion {self.criterion!r}. {nearest(str(self.criterion), CRITERIA)}"
            )
        sparsities(self.rounds_schedule, 0.5, self.rounds)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        names = list(self._targets(model, context))
        before = _zeros(model, names)
        rounds = 1 if context.trial else self.rounds
        for r in range(rounds):
            masks = self._masks(model, names, r)
            for name in names:
                _sparsify(model, name, masks[name], reinit=self.reinit, seed=context.seed)
            epochs = self.last_epochs if self.last_epochs is not None and r == rounds - 1 else self.epochs
            if epochs:
                context.train(model, f"prune-{r + 1}", **{**self.options(context), "epochs": epochs})
        if _zeros(model, names) <= before and not context.trial:
            raise StepError(
                "Prune touched nothing: no weight was below the threshold. Raise the sparsity or the quality."
            )
        return model

    def _targets(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        chosen = choose(model, self.layers, self.skip, context)
        option = next(o for o in (self.sparsity, self.density, self.quality) if o is not None)
        if isinstance(option, Mapping):
            wanted = per_layer(option, chosen, "Prune", known=formats.plain_parameters(model))
            for name in chosen.keys() - wanted.keys():
                context.skip(name, "no sparsity given for this layer")
            chosen = {name: weight for name, weight in chosen.items() if name in wanted}
        if not chosen:
            raise StepError(
                "Prune found no convolution, linear or embedding weight. Name the weights with layers=[...]."
            )
        return chosen

    @torch.no_grad()
    def _masks(self, model: nn.Module, names: list[str], r: int) -> dict[str, Tensor]:
        """The masks of round r, from the present weights."""
        present = formats.plain_parameters(model)
        if self.quality is not None:
            wanted = per_layer(self.quality, names, "Prune", known=present)
            return {name: by_quality(present[name], wanted[name]) for name in names}
        option: Any = self.sparsity if self.sparsity is not None else self.density
        target = {
            name: value if self.sparsity is not None else 1 - value
            for name, value in per_layer(option, names, "Prune", known=present).items()
        }
        now = {name: sparsities(self.rounds_schedule, target[name], self.rounds)[r] for name in names}
        score = CRITERIA[self.criterion]
        scores = {name: score(present[name]) for name in names}
        if self.scope == "global":
            return globally(scores, now[names[0]])
        return {name: by_fraction(scores[name], now[name]) for name in names}


@torch.no_grad()
def _sparsify(model: nn.Module, name: str, mask: Tensor, *, reinit: bool, seed: int) -> None:
    """Give the weight the format Sparse with exactly the entries of `mask` (and what was already pruned stays so)."""
    module, leaf = formats.locate(model, name)
    present = formats.attached(model).get(name)
    if present is not None:
        if not (isinstance(present.format, Sparse) and isinstance(present.format.values, Dense)):
            raise StepError(
                f"{name} already has the format {type(present.format).__name__}; prune before sharing or quantizing it."
            )
        mask = mask & formats.parts_of(model, name)[0]
        formats.detach(module, leaf)
    dense = getattr(module, leaf)
    if reinit:
        generator = torch.Generator().manual_seed(seed)
        fan_in = dense[0].numel() if dense.dim() > 1 else dense.numel()
        dense = (torch.rand(dense.shape, generator=generator) * 2 - 1) / fan_in**0.5
    formats.attach(module, leaf, Sparse(), (mask, dense.detach()[mask].clone()))


def _zeros(model: nn.Module, names: list[str]) -> int:
    with torch.no_grad():
        present = formats.plain_parameters(model)
        return sum(int((present[name] == 0).sum()) for name in names)


def _values(option: float | Mapping[str, float] | None) -> list[float]:
    if option is None:
        return []
    return list(option.values()) if isinstance(option, Mapping) else [option]
