"""imagenet-sample: 500 photographs of 256 x 256, one for each even ImageNet class (0, 2, ... 998).

Split by one fixed permutation: 350 test, 50 validation, and 100 train, which is enough to calibrate and too little
to train. The labels are the numbers of the usual 1000 classes. The preprocessing is that of Caffe's networks
(SqueezeNet): the middle 227 x 227, blue green red, 0..255 minus the mean colour; give `Preprocess` of your own for
another network.

The pictures come from the training side of ImageNet: accuracies are some points above the published validation
accuracy, so compare a network before and after compression, and call the figure nothing else. With 350 pictures one
standard error is 2.6 points.
Raises: DataError for a missing folder, a class list that is not of 1000 lines, and a file name without its class.
Source: Deng et al., "ImageNet: a large-scale hierarchical image database", CVPR 2009.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gossamer.data.folder import Pictures
from gossamer.data.preprocess import Preprocess
from gossamer.data.root import data_file
from gossamer.data.split import Data, Split
from gossamer.errors import DataError

FOLDER = "imagenet-sample"
SIZE = (256, 256)
TEST, VALIDATION = 350, 50


def imagenet_sample() -> Data:
    """500 photographs of 500 of the 1000 ImageNet classes."""
    names = data_file(FOLDER, "classes.tsv")
    classes = _classes(names)
    paths = sorted((names.parent / "images").glob("*.jpg"))
    labels = np.array([_label(path, len(classes)) for path in paths], np.int64)
    if len(paths) <= TEST + VALIDATION:
        raise DataError(f"{FOLDER}: {names.parent / 'images'} holds {len(paths)} pictures, expected 500.")
    whole = Split(Pictures(paths, size=SIZE, color="RGB"), labels, FOLDER)
    order = np.random.RandomState(0).permutation(len(paths))  # legacy on purpose: its stream never changes
    return Data(
        name=FOLDER,
        train=whole.subset(np.sort(order[TEST + VALIDATION :]), name="train"),
        validation=whole.subset(np.sort(order[TEST : TEST + VALIDATION]), name="validation"),
        test=whole.subset(np.sort(order[:TEST]), name="test"),
        classes=classes,
        preprocess=Preprocess(mean=(104.0, 117.0, 123.0), size=SIZE, crop=(227, 227), color="RGB", bgr=True),
        files=(names, *paths),
    )


def _classes(path: Path) -> tuple[str, ...]:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    if len(rows) != 1000 or any(len(row) != 3 or row[0] != str(at) for at, row in enumerate(rows)):
        raise DataError(f"{path}: expected a heading and 1000 lines of class number, WordNet id and name.")
    return tuple(row[2] for row in rows)


def _label(path: Path, classes: int) -> int:
    number = path.stem.partition("_")[0]
    if not number.isdigit() or int(number) >= classes:
        raise DataError(f"{path}: expected a name like 0042_n01498041.jpg, the class number first.")
    return int(number)
