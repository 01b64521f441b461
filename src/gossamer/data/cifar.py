"""CIFAR-10 from lossless WebP sheets: 45,000 train + 5,000 validation (500 of each class) + 10,000 test.

A sheet is 1280 x 800 pixels: 25 rows of 40 tiles of 32 x 32, tile number row * 40 + column, in the order of
the original batches. Decoding 60 sheets takes about 3 s on one core, so nothing is cached on disk, and a
process that only needs the test split decodes 10 sheets. Raw samples are uint8 [N, 32, 32, 3].
Raises: DataError that names the sheet or label file when it is missing, unreadable or of another size.
Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from gossamer.data.preprocess import Preprocess, read_image
from gossamer.data.root import data_file
from gossamer.data.split import Data, Lazy, Split, stratified
from gossamer.errors import DataError

HELD_OUT = 5000
TILE, ROWS, COLUMNS = 32, 25, 40


def cifar10() -> Data:
    """Ten kinds of small colour photographs."""
    folder = "cifar10"
    names = data_file(folder, "batches.meta.txt")
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    sheets = {
        batch: [data_file(folder, f"{batch}_{k}.webp") for k in range(10)]
        for batch in (*batches, "test_batch")
    }
    label_files = {batch: data_file(folder, f"{batch}_labels.txt") for batch in sheets}
    train_labels = np.concatenate([_labels(label_files[batch]) for batch in batches])
    train_sheets = [sheet for batch in batches for sheet in sheets[batch]]
    train = Split(Lazy(partial(read_sheets, train_sheets), len(train_labels)), train_labels)
    kept, held = stratified(train_labels, HELD_OUT)
    test_labels = _labels(label_files["test_batch"])
    return Data(
        name=folder,
        train=train.subset(kept, name="train"),
        validation=train.subset(held, name="validation"),
        test=Split(Lazy(partial(read_sheets, sheets["test_batch"]), len(test_labels)), test_labels, "test"),
        classes=tuple(names.read_text().split()),
        preprocess=Preprocess(
            scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=(32, 32), color="RGB"
        ),
        augment="flip-crop",
        files=(names, *label_files.values(), *(sheet for batch in sheets.values() for sheet in batch)),
    )


def read_sheets(paths: Sequence[Path]) -> np.ndarray:
    """The tiles of the sheets, in order: uint8 [1000 * sheets, 32, 32, 3]."""
    with ThreadPoolExecutor(4) as pool:  # Pillow decodes without holding the interpreter lock
        return np.concatenate(list(pool.map(_tiles, paths)))


def _tiles(path: Path) -> np.ndarray:
    sheet = read_image(path, size=None, color="RGB")
    if sheet.shape != (ROWS * TILE, COLUMNS * TILE, 3):
        raise DataError(f"{path}: the sheet is {sheet.shape}, expected {(ROWS * TILE, COLUMNS * TILE, 3)}.")
    return sheet.reshape(ROWS, TILE, COLUMNS, TILE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, TILE, TILE, 3)


def _labels(path: Path) -> np.ndarray:
    text = path.read_bytes().strip()
    if len(text) != 10_000 or not text.isdigit():
        raise DataError(f"{path}: holds {len(text)} characters, expected 10,000 digits, one for each image.")
    return np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
