"""The built-in data sets hold what their authors published, split the same way everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from gossamer.data import load_data
from gossamer.data.cifar import read_sheets
from gossamer.data.mnist import read_idx
from gossamer.data.root import data_file
from gossamer.data.split import Lazy, Split, View, stratified
from gossamer.errors import DataError

SIZES = {
    "mnist": (55_000, 5_000, 10_000),
    "fashion-mnist": (55_000, 5_000, 10_000),
    "cifar10": (45_000, 5_000, 10_000),
    "digits": (7_000, 1_000, 2_000),
    "fsdd": (2_400, 300, 300),
}


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_a_built_in_set_has_the_documented_splits(name, sizes, request):
    data = request.getfixturevalue("spoken") if name == "fsdd" else load_data(name)

    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert len(data.classes) == 10
    assert data.name == name


@pytest.mark.parametrize(
    ("file", "start", "end"),
    [
        ("train-images-idx3-ubyte.gz", "ba891046", "776db"),
        ("train-labels-idx1-ubyte.gz", "65a50cbb", "101c5"),
        ("t10k-images-idx3-ubyte.gz", "0fa7898d", "d494ce7"),
        ("t10k-labels-idx1-ubyte.gz", "ff7bcfd4", "ec33f2"),
    ],
)
def test_mnist_files_are_the_original_distribution(file, start, end):
    axes = 3 if "images" in file else 1
    array = read_idx(data_file("mnist", file), axes=axes)
    header = bytes((0, 0, 8, axes)) + b"".join(n.to_bytes(4, "big") for n in array.shape)

    digest = hashlib.sha256(header + array.tobytes()).hexdigest()

    assert digest.startswith(start)
    assert digest.endswith(end)


def test_cifar_sheets_rebuild_the_original_binary_batch():
    images = read_sheets([data_file("cifar10", f"test_batch_{k}.webp") for k in range(10)])
    labels = data_file("cifar10", "test_batch_labels.txt").read_bytes().strip()
    rows = [
        bytes((label - ord("0"),)) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip(labels, images, strict=True)
    ]

    digest = hashlib.sha256(b"".join(rows)).hexdigest()

    assert digest.startswith("3f7010f5")
    assert digest.endswith("d6c1")


def test_mnist_preprocessing_gives_mean_zero_and_deviation_one():
    data = load_data("mnist")

    inputs = data.preprocess(data.train.take(slice(0, 20_000))[0])

    assert inputs.shape == (20_000, 1, 28, 28)
    assert inputs.dtype == np.float32
    assert abs(inputs.mean()) < 0.01
    assert abs(inputs.std() - 1) < 0.01


def test_the_bundled_digits_are_the_mnist_test_images_each_used_once():
    digits, mnist = load_data("digits"), load_data("mnist")
    order = np.random.RandomState(0).permutation(10_000)
    images = np.concatenate([s.take(slice(None))[0] for s in (digits.train, digits.validation, digits.test)])

    assert (images == mnist.test.take(order)[0]).all()
    assert (digits.test.labels == mnist.test.labels[order[8000:]]).all()


def test_the_digits_need_no_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GOSSAMER_DATA", str(tmp_path))

    assert load_data("digits").batch(2).shape == (2, 1, 28, 28)


def test_a_validation_split_takes_each_class_by_its_share_and_nothing_twice():
    labels = np.repeat(np.arange(4), (10, 203, 500, 287))

    kept, held = stratified(labels, 100)

    assert len(held) == 100
    assert sorted([*kept, *held]) == list(range(1000))
    assert (abs(np.bincount(labels[held]) - np.array([1, 20.3, 50, 28.7])) < 1).all()


def test_cifar_validation_has_500_of_each_class_and_the_same_rows_every_time():
    one, two = load_data("cifar10"), load_data("cifar10")

    assert (np.bincount(one.validation.labels) == 500).all()
    assert (one.validation.inputs.rows == two.validation.inputs.rows).all()
    assert not set(one.validation.inputs.rows) & set(one.train.inputs.rows)


@pytest.fixture(scope="module")
def spoken():
    return load_data("fsdd")


def test_spoken_digits_of_the_test_split_are_takes_0_to_4_of_six_speakers(spoken):
    data = spoken
    inputs = data.preprocess(data.train.take(slice(None))[0])

    assert (np.bincount(data.test.labels) == 30).all()
    assert inputs.shape[1:] == (1, 32, 64)
    assert abs(inputs.mean()) < 0.01
    assert abs(inputs.std() - 1) < 0.01


def test_spoken_digits_can_be_told_apart_by_their_features(spoken):
    train, test = spoken.train.take(slice(None)), spoken.test.take(slice(0, None, 3))
    near = [train[1][((train[0] - clip) ** 2).sum((1, 2, 3)).argmin()] for clip in test[0]]

    assert (np.array(near) == test[1]).mean() > 0.85  # the nearest neighbour alone; chance is 0.1


def test_batches_cover_the_split_once_and_keep_the_ragged_last_one():
    split = load_data("digits").test
    batches = list(
        split.batches(300, preprocess=load_data("digits").preprocess, rng=np.random.default_rng(1))
    )

    assert [len(labels) for _, labels in batches] == [300] * 6 + [200]
    assert sorted(np.concatenate([labels for _, labels in batches])) == sorted(split.labels)


def test_subsets_of_subsets_are_the_rows_asked_for_and_copy_nothing():
    array = np.arange(20.0).reshape(10, 2)
    split = Split(array, np.arange(10))

    inner = split.subset(slice(2, 9)).subset(np.array([5, 0]))

    assert (inner.take(slice(None))[0] == array[[7, 2]]).all()
    assert (inner.labels == [7, 2]).all()
    assert isinstance(inner.inputs, View)
    assert len(split.subset(3)) == 3


def test_a_test_split_is_loaded_without_the_train_split():
    calls = []
    train = Split(Lazy(lambda: calls.append(1) or np.zeros((4, 2)), 4), np.zeros(4, int)).subset(2)

    assert len(train) == 2
    assert not calls
    assert train.take([1])[0].shape == (1, 2)
    assert calls == [1]


def test_fingerprints_tell_sets_apart_and_repeat():
    names = ("mnist", "digits", "fashion-mnist")
    prints = {name: load_data(name).fingerprint() for name in names}

    assert len(set(prints.values())) == len(names)
    assert prints["digits"] == load_data("digits").fingerprint()


def test_data_is_loaded_without_torch():
    code = (
        "import sys; from gossamer.data import load_data; d = load_data('digits');"
        "d.preprocess(d.test.take(slice(0, 8))[0]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "fsdd"])
def test_a_missing_file_is_named_with_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GOSSAMER_DATA", str(tmp_path))

    with pytest.raises(DataError, match=rf"{name}: .*{tmp_path}.* does not exist.*GOSSAMER_DATA"):
        load_data(name)


def test_a_data_folder_that_does_not_exist_is_an_error(monkeypatch):
    monkeypatch.setenv("GOSSAMER_DATA", "/nowhere/at/all")

    with pytest.raises(DataError, match="GOSSAMER_DATA: '/nowhere/at/all' is not a folder"):
        load_data("mnist")


def test_without_any_data_folder_the_error_offers_the_bundled_digits(tmp_path, monkeypatch):
    monkeypatch.delenv("GOSSAMER_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gossamer.data.root.__file__", str(tmp_path / "root.py"))

    with pytest.raises(DataError, match=r"no data folder was found.*'digits'"):
        load_data("mnist")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be unpacked|starts with"),
        (b"no gzip", "cannot be unpacked"),
        (None, "cannot be unpacked"),
    ],
)
def test_a_corrupt_file_is_named(content, reason, tmp_path, monkeypatch):
    whole = data_file("mnist", "train-labels-idx1-ubyte.gz").read_bytes()
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            path = tmp_path / "mnist" / f"{part}-{kind}-ubyte.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole[:2000] if content is None else content)
    monkeypatch.setenv("GOSSAMER_DATA", str(tmp_path))

    with pytest.raises(DataError, match=rf"train-labels-idx1-ubyte.gz: .*({reason})"):
        load_data("mnist")


@pytest.mark.parametrize(
    ("given", "meant"), [("mnits", "mnist"), ("cifar", "cifar10"), ("fashion", "fashion-mnist")]
)
def test_an_unknown_name_suggests_the_nearest(given, meant):
    with pytest.raises(DataError, match=f"unknown set '{given}'. Did you mean '{meant}'"):
        load_data(given)
