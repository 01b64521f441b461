"""MNIST, Fashion-MNIST and the bundled digits: gzipped IDX files.

    mnist, fashion-mnist: 55,000 train + 5,000 validation (stratified, fixed) + 10,000 test, uint8 [N, 28, 28]
    digits:               the 10,000 MNIST test images, carried by the package, in the order of
                          RandomState(0).permutation(10000): 7,000 train, 1,000 validation, 2,000 test

IDX: two zero bytes, a type byte (8 = uint8), the number of axes, each axis as a big-endian uint32, then the
values.
Raises: DataError that names the file when it is missing, not gzip, cut short, or not the IDX file expected.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from gossamer.data.preprocess import Preprocess
from gossamer.data.root import data_file
from gossamer.data.split import Data, Lazy, Split, stratified
from gossamer.errors import DataError

HELD_OUT = 5000
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_BUNDLE = Path(__file__).parent / "digits"


def read_idx(path: Path, *, axes: int) -> np.ndarray:
    """The uint8 array of a gzipped IDX file with the given number of axes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be unpacked ({error}), expected a gzipped IDX file. Copy it again."
        ) from error
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < start:
        raise DataError(
            f"{path}: starts with {content[:4].hex()}, expected 000008{axes:02x} (IDX, uint8, {axes} axes)."
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    expected = start + int(np.prod([int(n) for n in shape], dtype=object))
    if len(content) != expected:
        raise DataError(
            f"{path}: holds {len(content)} bytes, expected {expected} for shape {shape}. Copy it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def mnist() -> Data:
    """Handwritten digits of LeCun, Cortes and Burges."""
    return _load("mnist", DIGITS, mean=0.1307, std=0.3081, augment="shift")


def fashion_mnist() -> Data:
    """Clothing of Zalando Research; same shapes as MNIST."""
    return _load("fashion-mnist", CLOTHES, mean=0.2860, std=0.3530, augment=None)


def digits() -> Data:
    """The 10,000 digits that come with the package."""
    images, labels = _BUNDLE / "t10k-images-idx3-ubyte.gz", _BUNDLE / "t10k-labels-idx1-ubyte.gz"
    values = read_idx(labels, axes=1)
    order = np.random.RandomState(0).permutation(len(values))
    whole = Split(Lazy(partial(read_idx, images, axes=3), len(values)), values)
    return Data(
        name="digits",
        train=whole.subset(order[:7000], name="train"),
        validation=whole.subset(order[7000:8000], name="validation"),
        test=whole.subset(order[8000:], name="test"),
        classes=DIGITS,
        preprocess=_preprocess(0.1307, 0.3081),
        augment="shift",
        files=(images, labels),
    )


def _load(folder: str, classes: tuple[str, ...], *, mean: float, std: float, augment: str | None) -> Data:
    files = [
        data_file(folder, f"{part}-{kind}-ubyte.gz")
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    train_labels, test_labels = read_idx(files[1], axes=1), read_idx(files[3], axes=1)
    train = Split(Lazy(partial(read_idx, files[0], axes=3), len(train_labels)), train_labels)
    kept, held = stratified(train_labels, HELD_OUT)
    return Data(
        name=folder,
        train=train.subset(kept, name="train"),
        validation=train.subset(held, name="validation"),
        test=Split(Lazy(partial(read_idx, files[2], axes=3), len(test_labels)), test_labels, "test"),
        classes=classes,
        preprocess=_preprocess(mean, std),
        augment=augment,
        files=tuple(files),
    )


def _preprocess(mean: float, std: float) -> Preprocess:
    return Preprocess(scale=1 / 255, mean=(mean,), std=(std,), size=(28, 28), color="L")
