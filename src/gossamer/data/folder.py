"""`folder:DIR` or `folder:DIR@HxW`: pictures on disk, one sub-folder for each class.

Classes are the sub-folders in alphabetical order, pictures the files with a picture's ending anywhere below
them. The split is stratified and fixed: 80 % train, 10 % validation, 10 % test. Pictures are decoded when
first asked for, to grey when all of them are grey and else to RGB, resized (bilinear) to HxW; without a size,
to the size of the pictures when all agree and else to 224x224. Decoded pictures stay in memory while the
whole set takes less than 1 GB.
Raises: DataError for a missing or empty folder, a class without pictures, and a file that cannot be read (by
name).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.data.preprocess import Color, Preprocess, read_image
from gossamer.data.split import Data, Split, stratified
from gossamer.errors import DataError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
KEEP_BYTES = 1 << 30
GREY_MODES = ("1", "L", "I;16", "LA")


class Pictures:
    """Decoded pictures, uint8 [N, H, W] or [N, H, W, 3], read on demand."""

    def __init__(self, paths: Sequence[Path], *, size: tuple[int, int], color: Color) -> None:
        self.paths, self.size, self.color = paths, size, color
        self.shape = size if color == "L" else (*size, 3)
        keep = len(paths) * int(np.prod(self.shape)) <= KEEP_BYTES
        self._kept: np.ndarray | None = np.empty((len(paths), *self.shape), np.uint8) if keep else None
        self._known = np.zeros(len(paths), bool)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = np.arange(len(self))[index]
        if self._kept is None:
            return self._read(np.atleast_1d(rows)).reshape(*rows.shape, *self.shape)
        missing = np.unique(rows[~self._known[rows]])
        if len(missing):
            self._kept[missing] = self._read(missing)
            self._known[missing] = True
        pictures: np.ndarray = self._kept[rows]
        return pictures

    def _read(self, rows: np.ndarray) -> np.ndarray:
        read = partial(read_image, size=self.size, color=self.color)
        with ThreadPoolExecutor(4) as pool:
            decoded = list(pool.map(read, [self.paths[row] for row in rows]))
        return np.stack(decoded) if decoded else np.empty((0, *self.shape), np.uint8)


def folder(text: str) -> Data:
    """The data set of `DIR` or `DIR@HxW`."""
    match = re.fullmatch(r"(.*?)(?:@(\d+)x(\d+))?", text, re.DOTALL)
    assert match  # the pattern matches every text
    place = Path(match[1])
    if not place.is_dir():
        raise DataError(
            f"folder:{text}: {match[1]!r} is not a folder. Expected one with a sub-folder for each class."
        )
    classes = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"folder:{text}: holds no sub-folder, expected one for each class.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (place / name).rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        if len(found) < 3:
            raise DataError(
                f"folder:{text}: class {name!r} holds {len(found)} pictures, expected at least 3 (one for "
                f"each split). "
                f"Known endings: {' '.join(ENDINGS)}. Add pictures or remove the folder."
            )
        paths += found
        labels += [label] * len(found)
    given = (int(match[2]), int(match[3])) if match[2] else None
    size, color = _form(paths, given)
    whole = Split(Pictures(paths, size=size, color=color), np.array(labels), place.name)
    rest, test = stratified(whole.labels, max(len(classes), len(labels) // 10))
    kept, held = stratified(whole.labels[rest], max(len(classes), len(labels) // 10), seed=1)
    mean, std = ((0.5,), (0.5,)) if color == "L" else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Data(
        name=f"folder:{place.name}",
        train=whole.subset(rest[kept], name="train"),
        validation=whole.subset(rest[held], name="validation"),
        test=whole.subset(test, name="test"),
        classes=tuple(classes),
        preprocess=Preprocess(scale=1 / 255, mean=mean, std=std, size=size, color=color),
        files=tuple(paths),
    )


def _form(paths: Sequence[Path], given: tuple[int, int] | None) -> tuple[tuple[int, int], Color]:
    """(size, color) from the headers of all pictures."""
    from PIL import Image, UnidentifiedImageError

    sizes, modes = set(), set()
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.add((image.height, image.width))
                modes.add(image.mode)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}: cannot be read as an image ({error}). Replace or remove the file."
            ) from error
    size = given or (sizes.pop() if len(sizes) == 1 else (224, 224))
    return size, "L" if modes <= set(GREY_MODES) else "RGB"
