"""Train and Finetune: gradient descent on whatever the model's parameters are by now.

Formats train through their parts, so the same loop trains dense weights, the survivors of pruning, and the
shared values of a codebook. Finetune learns from the uncompressed network as well (soft targets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..distillation import FeatureTargets, SoftTargets
from ..errors import OptionError, StepError
from .base import Context, Step


@dataclass(frozen=True, kw_only=True)
class Train(Step):
    """Train on the labels.

    lr: highest learning rate; schedule: constant, cosine, step or one-cycle; augment: a name of training.augment;
    patience: stop after so many epochs without a better validation accuracy; mixed_precision: "no", or "bf16" for products
    in bfloat16, about twice as fast on processors that have instructions for it.
    """

    epochs: int = 10
    lr: float = 1e-3
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 128
    weight_decay: float = 0.0
    augment: str | None = None
    patience: int | None = None
    max_grad_norm: float | None = None
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        if not (isinstance(self.epochs, int) and self.epochs >= 0):
            raise OptionError(
                f"{type(self).__name__}: epochs is a whole number, at least 0; received {self.epochs!r}."
            )
        if not self.lr > 0:
            raise OptionError(f"{type(self).__name__}: lr must be positive; received {self.lr!r}.")
        if self.batch_size < 1:
            raise OptionError(
                f"{type(self).__name__}: batch_size must be at least 1; received {self.batch_size!r}."
            )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if self.epochs == 0:
            raise StepError(
                f"{type(self).__name__} with epochs=0 would touch nothing. Drop the step, or train longer."
            )
        context.train(model, type(self).__name__.lower(), **self.options(context))
        return model

    def options(self, context: Context) -> dict[str, Any]:
        """The arguments of `training.fit`."""
        return {
            "epochs": self.epochs,
            "lr": self.lr,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "augment": self.augment,
            "early_stop": self.patience,
            "max_grad_norm": self.max_grad_norm,
            "mixed_precision": self.mixed_precision,
        }


@dataclass(frozen=True, kw_only=True)
class Finetune(Train):
    """Train the compressed network further, by labels and by the uncompressed network's soft targets.

    teacher: "original", or None for labels alone; loss = (1 - weight) CE + weight T^2 KL(teacher || student).
    features: names or globs of modules whose outputs follow the teacher's as well, with feature_weight
    (distillation.FeatureTargets).
    Sources: Hinton, Vinyals, Dean, 2014, arXiv:1503.02531; Romero et al., "FitNets", ICLR 2015, arXiv:1412.6550.
    """

    epochs: int = 3
    lr: float = 1e-4
    teacher: str | None = "original"
    temperature: float = 4.0
    weight: float = 0.9
    features: Sequence[str] = ()
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher not in ("original", None):
            raise OptionError(f"Finetune: teacher is 'original' or null; received {self.teacher!r}.")
        if self.features and self.teacher is None:
            raise OptionError(
                "Finetune: features follow those of a teacher, but teacher is null. Use 'original', or leave them out."
            )

    def options(self, context: Context) -> dict[str, Any]:
        options = super().options(context)
        if self.teacher is not None:
            if context.teacher is None:
                raise StepError(
                    "Finetune: no original network to learn from. Use teacher=null, or run it through gs.apply."
                )
            loss = SoftTargets(context.teacher, temperature=self.temperature, weight=self.weight)
            features = [self.features] if isinstance(self.features, str) else self.features
            options["loss"] = FeatureTargets(loss, features, weight=self.feature_weight) if features else loss
        return options
