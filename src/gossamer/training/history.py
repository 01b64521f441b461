"""What a training run recorded, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One line of the log; `number` starts at 1, `lr` is the rate of the last step, accuracy is in 0..1."""

    number: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float

    @property
    def merit(self) -> tuple[float, float]:
        """Greater is better: accuracy first, then the smaller loss."""
        return self.validation_accuracy, -self.validation_loss


@dataclass
class History:
    """The epochs of a run; `best` is the one of greatest merit, the first of equals."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Epoch | None:
        return max(self.epochs, key=lambda epoch: epoch.merit, default=None)

    @property
    def last(self) -> Epoch | None:
        return self.epochs[-1] if self.epochs else None

    def to_list(self) -> list[dict[str, Any]]:
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_list(cls, given: Iterable[dict[str, Any]]) -> History:
        return cls([Epoch(**epoch) for epoch in given])
