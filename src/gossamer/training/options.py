"""The options of `fit`: checked before any work, and turned into an optimizer and an accelerator.

Raises: OptionError that names the option, what it is and what it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from gossamer.errors import OptionError, nearest
from gossamer.training.augment import find_augment
from gossamer.training.groups import groups
from gossamer.training.schedule import factor, find_schedule

MakeOptimizer = Callable[[list[Any]], Optimizer]
OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What decides a run besides model, data and callbacks; a checkpoint is only resumed by its equal."""

    epochs: int
    lr: float
    optimizer: str | MakeOptimizer
    momentum: float
    weight_decay: float
    batch_size: int
    schedule: str
    warmup: float
    augment: str | None
    label_smoothing: float
    seed: int
    early_stop: int | None
    max_grad_norm: float | None
    max_batches: int | None
    mixed_precision: str

    def __post_init__(self) -> None:
        for name, low in (
            ("epochs", 0),
            ("batch_size", 1),
            ("max_batches", 1),
            ("early_stop", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < low):
                raise OptionError(
                    f"training: {name} is {value!r}, expected a whole number of at least {low}."
                )
        for name, top in (
            ("momentum", 1),
            ("label_smoothing", 1),
            ("weight_decay", math.inf),
            ("warmup", math.inf),
        ):
            if not 0 <= getattr(self, name) < top:
                raise OptionError(
                    f"training: {name} is {getattr(self, name)!r}, expected at least 0 and less than {top}."
                )
        for name in ("lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"training: {name} is {value!r}, expected a positive number.")
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise OptionError(
                f"training: unknown optimizer {self.optimizer!r}. {nearest(self.optimizer, OPTIMIZERS)}"
            )
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise OptionError(
                f"training: mixed_precision is {self.mixed_precision!r}, expected 'no', 'fp16' or 'bf16'."
            )
        find_schedule(self.schedule)
        find_augment(self.augment)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"optimizer": self.optimizer if isinstance(self.optimizer, str) else "custom"}

    def steps(self, samples: int) -> int:
        """Steps of an epoch over so many samples."""
        steps = -(-samples // self.batch_size)
        return steps if self.max_batches is None else min(steps, self.max_batches)

    def rate(self, step: int, steps: int) -> float:
        """The factor on the learning rate at a step of the whole run, of `steps` an epoch."""
        warmup = round(self.warmup * steps)
        return factor(find_schedule(self.schedule), step, total=self.epochs * steps, warmup=warmup)

    def make_optimizer(self, model: nn.Module, parameters: Iterable[Any] | None) -> Optimizer:
        """The optimizer over the given parameters (or groups), or over all that require a gradient."""
        given = list(model.parameters() if parameters is None else parameters)
        given = [item for item in given if not isinstance(item, Tensor) or item.requires_grad]
        if not given:
            raise OptionError(
                "training: no parameter is left to train, expected one that requires a gradient."
            )
        given = groups(model, given, self.lr)
        if not isinstance(self.optimizer, str):
            return self.optimizer(given)
        if self.optimizer == "sgd":
            return SGD(given, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(given, lr=self.lr, betas=(self.momentum, 0.999), weight_decay=self.weight_decay)

    def make_accelerator(self, device: str | torch.device | None) -> Accelerator:
        """A fresh Accelerator; its state is global, so that of an earlier run is forgotten first."""
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
        # said outright, because several processes on processors alone are only found when it is
        cpu = not torch.accelerator.is_available() if device is None else torch.device(device).type == "cpu"
        return Accelerator(cpu=cpu, mixed_precision=self.mixed_precision)
