"""Callback: what may be added to the training loop without changing it.

The model passed is the plain module (unwrapped from any parallel wrapper). A callback that has state of its
own returns it from `state_dict` (numbers, texts, lists, dicts, tensors); it is checkpointed with the run and
handed back on resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gossamer.training.history import History


class Callback:
    """Every hook does nothing; override what is needed."""

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Before the first step of an epoch (from 0)."""

    def on_step_end(self, model: nn.Module, optimizer: Optimizer) -> None:
        """After each optimizer step."""

    def on_epoch_end(self, epoch: int, model: nn.Module, history: History) -> bool | None:
        """After validation; the epoch is in the history. True ends the run."""
        return None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class AfterStep(Callback):
    """Calls change(model, optimizer) after each optimizer step: a proximal step, a mask, a projection."""

    def __init__(self, change: Callable[[nn.Module, Optimizer], object]) -> None:
        self.change = change

    def on_step_end(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.change(model, optimizer)
