"""Folders of pictures and data sets made by the user's code, with their faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from gossamer.data import Data, Preprocess, Split, load_data
from gossamer.data.custom import as_data
from gossamer.errors import DataError


def make_folder(place, *, classes=("cat", "dog"), count=20, size=(6, 4), mode="RGB"):
    """Pictures whose first pixel tells class and number."""
    for label, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new(mode, (size[1], size[0]), (label, number, 7) if mode == "RGB" else number)
            image.save(place / name / f"{number:03}.png")
    return f"folder:{place}"


def arrays(count=30, *, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 4)).astype(np.float32), np.arange(count) % classes


def test_a_folder_gives_each_picture_once_with_the_label_of_its_folder(tmp_path):
    data = load_data(make_folder(tmp_path / "pets"))
    seen = []
    for split in (data.train, data.validation, data.test):
        raw, labels = split.take(slice(None))
        assert (raw[:, 0, 0, 0] == labels).all()
        seen += [tuple(pixel) for pixel in raw[:, 0, 0, :2]]

    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 4, 4)
    assert len(set(seen)) == 40
    assert data.batch(3).shape == (3, 3, 6, 4)
    assert data.fingerprint() == load_data(f"folder:{tmp_path / 'pets'}").fingerprint()


def test_the_split_of_a_folder_is_the_same_every_time(tmp_path):
    spec = make_folder(tmp_path / "pets")

    assert (load_data(spec).test.take(slice(None))[0] == load_data(spec).test.take(slice(None))[0]).all()


def test_grey_folders_stay_grey_and_a_size_may_be_given(tmp_path):
    data = load_data(make_folder(tmp_path / "scans", mode="L") + "@8x12")

    assert data.preprocess.color == "L"
    assert data.batch(2).shape == (2, 1, 8, 12)


def test_pictures_of_different_sizes_become_224(tmp_path):
    spec = make_folder(tmp_path / "mixed", count=5)
    Image.new("RGB", (9, 9)).save(tmp_path / "mixed" / "cat" / "big.png")

    assert load_data(spec).batch(1).shape == (1, 3, 224, 224)


def test_a_large_folder_is_decoded_again_instead_of_kept(tmp_path, monkeypatch):
    spec = make_folder(tmp_path / "pets")
    kept = load_data(spec).train.take(slice(None))[0]
    monkeypatch.setattr("gossamer.data.folder.KEEP_BYTES", 10)
    data = load_data(spec)

    assert (data.train.take(slice(None))[0] == kept).all()
    assert data.train.inputs.samples._kept is None


def test_faults_of_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        load_data(f"folder:{tmp_path / 'absent'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no sub-folder"):
        load_data(f"folder:{tmp_path / 'empty'}")
    spec = make_folder(tmp_path / "pets")
    (tmp_path / "pets" / "bird").mkdir()
    with pytest.raises(DataError, match="class 'bird' holds 0 pictures"):
        load_data(spec)


def test_an_unreadable_picture_is_named_when_it_is_found(tmp_path):
    spec = make_folder(tmp_path / "pets")
    broken = tmp_path / "pets" / "cat" / "003.png"
    content = broken.read_bytes()
    broken.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"cat/003\.png: cannot be read as an image"):
        load_data(spec)
    broken.write_bytes(content[:50])  # a header, and no pixels
    data = load_data(spec)
    whole = data.train.inputs.samples
    with pytest.raises(DataError, match=r"cat/003\.png: cannot be read as an image"):
        whole.samples[:] if hasattr(whole, "samples") else whole[:]


def test_arrays_pairs_and_torch_datasets_give_the_same_splits():
    x, y = arrays()

    class Pairs(Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, row):
            return x[row], int(y[row])

    forms = [
        (x, y),
        TensorDataset(torch.tensor(x), torch.tensor(y)),
        Pairs(),
        list(zip(x, y.tolist(), strict=True)),
        Split(x, y),
    ]
    for form in forms:
        data = as_data((form, form), name="mine")
        assert (data.train.labels == as_data(((x, y), (x, y)), name="mine").train.labels).all()
        assert (data.test.take(slice(None))[0] == x).all()
        assert len(data.validation) == 3
        assert data.classes == ("0", "1", "2")
        assert data.batch(2).dtype == np.float32


def test_a_dict_may_carry_classes_preprocessing_and_augmentation():
    x, y = arrays()
    pictures = np.zeros((30, 5, 6, 3), np.uint8)
    given = {
        "train": (x, y),
        "validation": (x, y),
        "test": (x, y),
        "classes": "abc",
        "preprocess": Preprocess(scale=2),
    }

    data = as_data(given, name="mine")
    plain = as_data({"train": (pictures, y), "test": (pictures, y), "augment": "shift"}, name="mine")

    assert data.classes == ("a", "b", "c")
    assert (data.batch(30) == 2 * x).all()
    assert plain.preprocess == Preprocess(scale=1 / 255, size=(5, 6), color="RGB")
    assert plain.augment == "shift"


def test_functions_of_files_and_modules_are_called(tmp_path, monkeypatch):
    neighbour = "import numpy as np\nX = np.ones((9, 2), 'f')\nY = np.arange(9) % 3\n"
    sets = "def tiny():\n    return (X, Y), (X, Y)\nclass Sets:\n    tiny = staticmethod(tiny)\n"
    (tmp_path / "neighbour_of_mine.py").write_text(neighbour)
    (tmp_path / "my_sets.py").write_text(f"from neighbour_of_mine import X, Y\n{sets}")
    by_file = load_data(f"{tmp_path / 'my_sets.py'}:tiny")
    monkeypatch.chdir(tmp_path)
    by_module = load_data("my_sets:Sets.tiny")

    assert isinstance(by_file, Data)
    assert by_file.train.labels.tolist() == by_module.train.labels.tolist()


@pytest.mark.parametrize(
    ("source", "spec", "message"),
    [
        ("x = 1", "absent.py:make", "there is no file"),
        ("x = 1", "absent_module_of_mine:make", "there is no module 'absent_module_of_mine'"),
        ("def makes(): ...", "mine.py:make", "has no 'make'. Did you mean 'makes'"),
        ("import nothing_of_this_name", "mine.py:make", "importing .* failed .*nothing_of_this_name"),
        ("def make(): raise KeyError('k')", "mine.py:make", "the function failed .KeyError"),
        ("def make(): return 7", "mine.py:make", "returned int, expected a Data"),
        ("def make(): return {'train': 1}", "mine.py:make", "returned dict with keys .'train'., expected"),
        ("def make(): return [1, 2, 3, 4]", "mine.py:make", "returned list of 4, expected"),
        ("def make(): return 5, 6", "mine.py:make", "mine.py:make train: int given, expected arrays"),
        ("def make(): return ([1, 2, 3],) * 2", "mine.py:make", "sample 0 is int, expected an .x, y. pair"),
        ("def make(): return ([(1, 'a')],) * 2", "mine.py:make", "a label is not an integer"),
        ("def make(): return ([([1.], -1)] * 3,) * 2", "mine.py:make", "label -1 is out of range"),
        ("def make(): return ([], [(1., 0)])", "mine.py:make", "split is empty"),
        ("def make(): return {'train': 1, 'test': 2, 'clases': 3}", "mine.py:make", "unknown key 'clases'"),
        ("x = 1", ":", "expected module:function"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_in_one_line(source, spec, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DataError, match=message) as caught:
        load_data(spec)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_classes_are_found_with_their_place():
    x, y = arrays()

    with pytest.raises(
        DataError, match=r"mine, train sample 2: label 2 is out of range, expected 0 to 1 for 2 classes"
    ):
        as_data({"train": (x, y), "validation": (x, y), "test": (x, y), "classes": ["a", "b"]}, name="mine")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_named(value):
    x, y = arrays()
    x[17, 1] = value

    with pytest.raises(DataError, match=r"train: sample 17 holds NaN or infinity"):
        as_data(((x, y), (x, y)), name="mine")
    pairs = list(zip(x, y.tolist(), strict=True))
    data = as_data({"train": pairs, "validation": pairs, "test": pairs}, name="mine")
    with pytest.raises(DataError, match="train: sample 17 holds NaN or infinity"):
        data.train.take(np.array([3, 17]))


def test_lengths_and_shapes_that_do_not_agree_are_errors():
    x, y = arrays()

    with pytest.raises(DataError, match="30 samples but 29 labels"):
        as_data(((x, y[1:]), (x, y)), name="mine")
    with pytest.raises(DataError, match="expected one integer for each sample"):
        as_data(((x, y + 0.5), (x, y)), name="mine")
    pairs = [(np.zeros(2), 0), (np.zeros(3), 1), (np.zeros(2), 1)]
    data = as_data({"train": pairs, "validation": pairs, "test": pairs}, name="mine")
    with pytest.raises(DataError, match=r"samples have different shapes, \[\(2,\), \(3,\)\]"):
        data.train.take(slice(None))
