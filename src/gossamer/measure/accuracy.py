"""Accuracy of a packed file, counted by the torch-free runtime.

    value = correct / total,     [low, high] = Wilson score interval at 95 % (z = 1.959964)
    centre = (p + z^2/2n) / (1 + z^2/n),   half = z / (1 + z^2/n) * sqrt(p (1 - p)/n + z^2/4n^2)

Raises: MeasureError for outputs that are not scores of classes; DataError for labels the outputs cannot name.
Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from ..data import Preprocess, Split
from ..errors import DataError, MeasureError

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Accuracy:
    """Correct answers out of `total`, the fraction, and its 95 % interval."""

    correct: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, correct: int, total: int) -> Accuracy:
        """The fraction and its Wilson interval."""
        if not 0 <= correct <= total or total == 0:
            raise MeasureError(
                f"accuracy: {correct} correct of {total}; expected 0 <= correct <= total, total > 0."
            )
        p, zz = correct / total, _Z * _Z
        centre = (p + zz / (2 * total)) / (1 + zz / total)
        half = _Z / (1 + zz / total) * sqrt(p * (1 - p) / total + zz / (4 * total * total))
        return cls(correct, total, p, max(0.0, centre - half), min(1.0, centre + half))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def accuracy(
    session: Callable[[np.ndarray], np.ndarray | Mapping[str, np.ndarray]],
    split: Split,
    preprocess: Preprocess,
    *,
    batch: int = 500,
) -> Accuracy:
    """Fraction of a split whose label is the largest output; of several outputs the first one counts."""
    if not len(split):
        raise MeasureError(f"{split.name}: the split is empty, so it has no accuracy.")
    correct = 0
    for inputs, labels in split.batches(batch, preprocess=preprocess):
        answer = session(inputs)
        scores = next(iter(answer.values())) if isinstance(answer, Mapping) else answer
        scores = np.asarray(scores)
        if scores.ndim != 2 or len(scores) != len(labels):
            raise MeasureError(
                f"{split.name}: the first output has shape {scores.shape}, expected [{len(labels)}, classes] "
                f"to count right answers."
            )
        if labels.max() >= scores.shape[1]:
            raise DataError(
                f"{split.name}: label {labels.max()} is out of range for {scores.shape[1]} outputs. "
                f"Measure on the data the network was trained for."
            )
        correct += int((scores.argmax(1) == labels).sum())
    return Accuracy.of(correct, len(split))
