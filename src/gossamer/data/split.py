"""Split and Data: samples with labels, cut into train, validation and test.

A split holds raw samples (as the files hold them: uint8 pictures, features) and int64 labels [N]. The samples
are an array, or anything with a length that returns a raw batch for an int array; `View` and `Lazy` are two
such sequences, so that a subset copies nothing and a process that only needs the test split decodes nothing
else.

Validation splits are stratified and drawn by `numpy.random.RandomState`, whose stream is frozen: the same
rows on every machine and version. The test split is never used for a choice.
Raises: DataError for labels that are not classes, samples that are not finite, and lengths that do not agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gossamer.data.preprocess import Preprocess
from gossamer.errors import DataError

CONTENT_LIMIT_BYTES = 256 << 20  # a fingerprint reads contents up to this size, names and sizes above it


class Samples(Protocol):
    """What a split keeps its raw samples in; an ndarray is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> np.ndarray: ...


class Lazy:
    """An array that is loaded when the first sample is asked for."""

    def __init__(self, load: Callable[[], np.ndarray], length: int) -> None:
        self._load, self._length = load, length

    @cached_property
    def array(self) -> np.ndarray:
        array = self._load()
        if len(array) != self._length:
            raise DataError(f"data: {len(array)} samples were loaded for {self._length} labels.")
        return array

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> np.ndarray:
        chosen: np.ndarray = self.array[index]
        return chosen


class View:
    """Some rows of other samples, in a given order, without a copy."""

    def __init__(self, samples: Samples, rows: np.ndarray) -> None:
        self.samples, self.rows = samples, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.samples[self.rows[index]]


@dataclass(frozen=True, eq=False)
class Split:
    """Raw samples and their labels [N]."""

    inputs: Samples
    labels: np.ndarray
    name: str = "data"

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{self.name}: labels are {labels.dtype} of shape {labels.shape}, expected one integer for "
                f"each sample."
            )
        if len(self.inputs) != len(labels):
            raise DataError(f"{self.name}: {len(self.inputs)} samples but {len(labels)} labels.")
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Any) -> tuple[np.ndarray, np.ndarray]:
        """Raw samples and labels of an int array or slice; float samples are checked to be finite."""
        raw = np.asarray(self.inputs[index])
        if raw.dtype.kind == "f" and not np.isfinite(raw).all():
            bad = np.flatnonzero(~np.isfinite(raw).reshape(len(raw), -1).all(1))
            row = int(np.arange(len(self))[index][bad[0]])
            raise DataError(
                f"{self.name}: sample {row} holds NaN or infinity, expected finite values. Clean the data."
            )
        return raw, self.labels[index]

    def subset(self, rows: Any, *, name: str | None = None) -> Split:
        """The given rows (int array, slice or count), in that order."""
        chosen = np.arange(len(self))[: rows if isinstance(rows, int) else None]
        chosen = chosen if isinstance(rows, int) else chosen[rows]
        return Split(View(self.inputs, chosen), self.labels[chosen], name or self.name)

    def batches(
        self, batch_size: int, *, preprocess: Preprocess, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(float32 inputs, int64 labels), shuffled when `rng` is given; the last batch may be smaller."""
        order = None if rng is None else rng.permutation(len(self))
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            raw, labels = self.take(slice(start, stop) if order is None else order[start:stop])
            yield preprocess(raw), labels


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits, the class names, and how samples reach the model."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    preprocess: Preprocess
    augment: str | None = None
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for split in (self.train, self.validation, self.test):
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                row = int(np.flatnonzero((split.labels < 0) | (split.labels >= len(self.classes)))[0])
                raise DataError(
                    f"{self.name}, {split.name} sample {row}: label {split.labels[row]} is out of range, "
                    f"expected "
                    f"0 to {len(self.classes) - 1} for {len(self.classes)} classes. Renumber the labels from "
                    f"0."
                )

    def batch(self, count: int = 1) -> np.ndarray:
        """The first training samples, ready for the model: an example input."""
        return self.preprocess(self.train.take(slice(0, count))[0])

    def fingerprint(self) -> str:
        """SHA-256 of files (names and sizes alone above 256 MB), labels, rows and preprocessing."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.name, self.classes, self.preprocess.to_dict()]).encode())
        sizes = [path.stat().st_size for path in self.files]
        for path, size in zip(self.files, sizes, strict=True):
            digest.update(f"{path.parent.name}/{path.name} {size}\n".encode())
            if sum(sizes) <= CONTENT_LIMIT_BYTES:
                digest.update(path.read_bytes())
        for split in (self.train, self.validation, self.test):
            digest.update(f"{split.name} {len(split)}\n".encode() + split.labels.tobytes())
            rows = split.inputs.rows if isinstance(split.inputs, View) else None
            digest.update(b"" if rows is None else rows.astype(np.int64).tobytes())
            if not self.files:
                for start in range(0, min(len(split), 20_000), 500):
                    digest.update(np.ascontiguousarray(split.take(slice(start, start + 500))[0]).tobytes())
        return digest.hexdigest()


def stratified(labels: np.ndarray, count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows kept, rows held out), both ascending: `count` rows held out, each class by its share.

    Shares are rounded by the largest remainder, so the count is exact.
    """
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * (count / len(labels))
    held = np.floor(share).astype(int)
    held[np.argsort(-(share - held), kind="stable")[: count - held.sum()]] += 1
    random = np.random.RandomState(seed)  # legacy on purpose: its stream never changes
    out = np.zeros(len(labels), bool)
    for value, number in zip(classes, held, strict=True):
        out[random.permutation(np.flatnonzero(labels == value))[:number]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)
