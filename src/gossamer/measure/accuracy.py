"""Accuracy of a packed file, counted by the torch-free runtime.

    value = correct / total,     [low, high] = Wilson score interval at 95 % (z = 1.959964)
    centre = (p + z^2/2n) / (1 + z^2/n),   half = z / (1 + z^2/n) * sqrt(p (1 - p)/n + z^2/4n^2)

`fresh_accuracy` starts another Python in which importing torch is an error, so the figure is what a user of the
file gets. GOSSAMER_PYTHON names another interpreter (one of an environment without torch).
Raises: MeasureError when that process fails or answers nonsense; DataError for labels the outputs cannot name.
Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Data, Preprocess, Split
from ..errors import DataError, MeasureError

PYTHON = "GOSSAMER_PYTHON"
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


def fresh_accuracy(path: str | Path, data: str | Data, *, batch: int = 500) -> Accuracy:
    """Accuracy on the test split, measured in a new process that cannot import torch.

    `data` is the spec of a built-in set or folder, which that process loads itself, or loaded Data (of a Python
    function, which may need torch), whose test split is handed over as arrays.
    """
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(data, Data):
            _save(Path(folder), data)
            source = ["--arrays", folder]
        else:
            source = ["--data", data]
        interpreter = os.environ.get(PYTHON) or sys.executable
        command = [interpreter, "-m", "gossamer.measure.fresh", str(path), *source, "--batch", str(batch)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise MeasureError(f"{PYTHON}: {interpreter!r} cannot be started ({error.strerror}).") from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        if "error" in answer:
            raise MeasureError(f"{path}: the fresh process says: {answer['error']}")
        return Accuracy.of(answer["correct"], answer["total"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasureError(
            f"{path}: the fresh process ended with status {done.returncode} ({last}), expected the accuracy. "
            f"{PYTHON} must name a Python that has gossamer installed."
        ) from error


def _save(folder: Path, data: Data) -> None:
    """The test split as files that `fresh` reads back."""
    inputs, labels = data.test.take(slice(0, len(data.test)))
    np.save(folder / "inputs.npy", inputs, allow_pickle=False)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    (folder / "preprocess.json").write_text(json.dumps(data.preprocess.to_dict()), encoding="utf-8")
