"""`module:function` and `file.py:function`: a data set made by the user's code.

The function takes no argument and returns one of

    a Data
    (train, test)   (train, validation, test)
    {"train": ..., "validation": ..., "test": ..., "classes": [...], "preprocess": ..., "augment": "shift"}

where each part is a Split, a pair of arrays (inputs [N, ...], labels [N]), or any indexable set of (x, y)
pairs, such as a torch Dataset. `validation` (10 % of train when absent, stratified and fixed), `classes`,
`preprocess` and `augment` may be missing. Samples of uint8 are taken as pictures and scaled by 1/255; all
others reach the model as they are. A set of pairs is asked for its samples anew for each batch, so its own
random transforms keep working.
Raises: DataError that says what was returned and what is expected.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from gossamer.data.imported import import_name
from gossamer.data.preprocess import Preprocess
from gossamer.data.split import Data, Split, stratified
from gossamer.errors import DataError

PARTS = ("train", "validation", "test")
_EXPECTED = "expected a Data, (train, test), (train, validation, test), or a dict with 'train' and 'test'"


class Pairs:
    """The x of an indexable set of (x, y) pairs, stacked for each batch."""

    def __init__(self, pairs: Any, name: str) -> None:
        self.pairs, self.name = pairs, name

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        samples = [np.asarray(_pair(self.pairs, int(row), self.name)[0]) for row in np.atleast_1d(rows)]
        shapes = {sample.shape for sample in samples}
        if len(shapes) > 1:
            raise DataError(
                f"{self.name}: samples have different shapes, {sorted(shapes)[:3]}, expected one shape. "
                f"Resize or pad them in the data set."
            )
        return np.stack(samples) if samples else np.empty((0,), np.float32)


def custom(spec: str) -> Data:
    """The data set that the function named by `spec` returns."""
    function = import_name(spec, error=DataError)
    try:
        made = function() if callable(function) else function
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{spec}: the function failed ({type(error).__name__}: {error}).") from error
    return as_data(made, name=spec)


def as_data(made: Any, *, name: str) -> Data:
    """A Data from anything the module docstring lists."""
    if isinstance(made, Data):
        return made
    if isinstance(made, (tuple, list)) and len(made) in (2, 3):
        parts = dict(zip(("train", "test") if len(made) == 2 else PARTS, made, strict=True))
        options: dict[str, Any] = {}
    elif isinstance(made, Mapping) and {"train", "test"} <= set(made):
        parts = {key: made[key] for key in PARTS if made.get(key) is not None}
        options = {key: value for key, value in made.items() if key not in PARTS}
    else:
        keys = f" with keys {list(made)}" if isinstance(made, Mapping) else ""
        length = f" of {len(made)}" if isinstance(made, (tuple, list)) else ""
        raise DataError(f"{name}: returned {type(made).__name__}{length}{keys}, {_EXPECTED}.")
    unknown = set(options) - {"classes", "preprocess", "augment"}
    if unknown:
        raise DataError(
            f"{name}: unknown key {sorted(unknown)[0]!r}, expected train, validation, test, classes, ..."
        )
    splits = {key: _split(value, f"{name} {key}", key) for key, value in parts.items()}
    for key, split in splits.items():
        if not len(split):
            raise DataError(f"{name}: the {key} split is empty, expected at least one sample.")
    if "validation" not in splits:
        train = splits["train"]
        kept, held = stratified(train.labels, max(1, len(train) // 10))
        splits["train"], splits["validation"] = train.subset(kept), train.subset(held, name="validation")
    classes = options.get("classes") or getattr(parts["train"], "classes", None)
    if classes is None:
        classes = range(1 + max(int(split.labels.max()) for split in splits.values()))
    preprocess = options.get("preprocess") or _preprocess(splits["train"].take(slice(0, 1))[0])
    if not isinstance(preprocess, Preprocess):
        raise DataError(f"{name}: preprocess is {type(preprocess).__name__}, expected a Preprocess.")
    return Data(
        name=name,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=tuple(map(str, classes)),
        preprocess=preprocess,
        augment=options.get("augment"),
    )


def _split(value: Any, place: str, key: str) -> Split:
    if isinstance(value, Split):
        return Split(value.inputs, value.labels, key)
    if (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(hasattr(part, "__len__") for part in value)
    ):
        inputs = np.asarray(value[0])
        if inputs.dtype.kind not in "fiub":
            raise DataError(f"{place}: inputs are {inputs.dtype}, expected numbers.")
        split = Split(inputs, np.asarray(value[1]), key)
        for start in range(0, len(split), 4096):
            split.take(slice(start, start + 4096))  # says now which sample is not finite
        return split
    if not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise DataError(
            f"{place}: {type(value).__name__} given, expected arrays (inputs, labels) or (x, y) pairs by "
            f"index."
        )
    return Split(Pairs(value, place), _labels(value, place), key)


def _labels(pairs: Any, place: str) -> np.ndarray:
    """From `.targets` or `.labels` when the set has them, else by asking for every pair."""
    for attribute in ("targets", "labels"):
        known = getattr(pairs, attribute, None)
        if known is not None and hasattr(known, "__len__") and len(known) == len(pairs):
            return np.asarray(known)
    try:
        return np.array([operator.index(_pair(pairs, row, place)[1]) for row in range(len(pairs))], np.int64)
    except TypeError as error:
        raise DataError(
            f"{place}: a label is not an integer ({error}), expected class numbers from 0."
        ) from error


def _pair(pairs: Any, row: int, place: str) -> tuple[Any, Any]:
    pair = pairs[row]
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(f"{place}: sample {row} is {type(pair).__name__}, expected an (x, y) pair.")
    return pair[0], pair[1]


def _preprocess(raw: np.ndarray) -> Preprocess:
    if raw.dtype != np.uint8:
        return Preprocess()
    if raw.ndim == 3:
        return Preprocess(scale=1 / 255, size=raw.shape[1:3], color="L")
    if raw.ndim == 4 and raw.shape[3] == 3:
        return Preprocess(scale=1 / 255, size=raw.shape[1:3], color="RGB")
    return Preprocess(scale=1 / 255)
