"""SqueezeNet with its public weights scores on the ImageNet sample what the data's README says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gossamer.data import Preprocess, load_data
from gossamer.errors import DataError, OptionError
from gossamer.models import load_model


@pytest.fixture(scope="module")
def data():
    return load_data("imagenet-sample")


@pytest.fixture(scope="module")
def model():
    return load_model("squeezenet1_1", "squeezenet1_1_imagenet_fp16")


def logits(model: torch.nn.Module, inputs: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.from_numpy(inputs))
    return result


def test_it_has_the_published_number_of_parameters_and_single_precision(model):
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_235_496
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {"conv1.weight", "fire2/squeeze1x1.weight", "conv10.bias"} <= set(model.state_dict())


def test_pools_round_the_size_up(model):
    sizes: list[tuple[int, ...]] = []
    hook = model.conv10.register_forward_hook(lambda module, args, output: sizes.append(output.shape[2:]))

    logits(model, np.zeros((1, 3, 227, 227), np.float32))
    hook.remove()

    assert sizes == [(14, 14)]  # 113 -> 56 -> 28 -> 14; rounded down, the last two were 27 and 13


def test_the_sample_is_split_once_and_for_all(data):
    labels = np.concatenate([split.labels for split in (data.train, data.validation, data.test)])

    assert [len(split) for split in (data.train, data.validation, data.test)] == [100, 50, 350]
    assert sorted(labels) == list(range(0, 1000, 2))
    assert data.train.labels[:4].tolist() == [18, 50, 56, 62]
    assert data.classes[388].startswith("giant panda")


def test_pictures_reach_the_network_cropped_and_blue_first(data):
    raw = data.test.take(slice(0, 1))[0]

    given = data.preprocess(raw)

    expected = raw[:, 14:241, 14:241, ::-1].astype(np.float32) - np.float32([104, 117, 123])
    assert given.shape == (1, 3, 227, 227)
    assert (given == expected.transpose(0, 3, 1, 2)).all()
    assert Preprocess.from_dict(json.loads(json.dumps(data.preprocess.to_dict()))) == data.preprocess


def test_a_file_is_resized_then_cropped(tmp_path):
    picture = Image.new("RGB", (12, 9), (1, 2, 3))
    picture.save(tmp_path / "small.png")

    result = Preprocess(size=(8, 10), crop=(5, 4), color="RGB", bgr=True).image(tmp_path / "small.png")

    assert result.shape == (1, 3, 5, 4)
    assert result[0, :, 0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bgr": True}, "bgr needs color 'RGB'"),
        ({"bgr": True, "color": "L"}, "bgr needs color 'RGB'"),
        ({"crop": (4, 4)}, "crop .* needs positive sizes and pictures"),
        ({"crop": (0, 4), "color": "L"}, "crop .* needs positive sizes"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Preprocess(**options)


def test_a_picture_smaller_than_the_crop_is_an_error():
    with pytest.raises(DataError, match="pictures of 4x9 are smaller than the crop of 5x5"):
        Preprocess(color="L", crop=(5, 5))(np.zeros((1, 4, 9), np.uint8))


@pytest.mark.slow
def test_the_public_weights_score_what_the_readme_says(data, model):
    first = five = 0
    for split in (data.train, data.validation, data.test):
        for inputs, labels in split.batches(25, preprocess=data.preprocess):
            best = logits(model, inputs).topk(5).indices
            hits = best == torch.from_numpy(labels)[:, None]
            first, five = first + int(hits[:, 0].sum()), five + int(hits.sum())

    assert (first, five) == (303, 414)  # 60.6 % and 82.8 % of 500
