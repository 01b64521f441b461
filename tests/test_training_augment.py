"""Augmentations and schedules equal their descriptions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gossamer.errors import DataError, OptionError
from gossamer.training.augment import AUGMENTS, affine, find_augment
from gossamer.training.schedule import SCHEDULES, factor, find_schedule

FORMS = {"L": (64, 9, 7), "RGB": (64, 9, 7, 3), None: (64, 2, 9, 7)}


def pictures(color, seed=0):
    return np.random.default_rng(seed).integers(1, 256, FORMS[color], np.uint8)


@pytest.mark.parametrize("color", FORMS)
@pytest.mark.parametrize("name", AUGMENTS)
def test_an_augmentation_keeps_the_shape_and_repeats_with_its_seed(name, color):
    raw = pictures(color)
    before = raw.copy()

    one = find_augment(name)(raw, np.random.default_rng(1), color)
    two = find_augment(name)(raw, np.random.default_rng(1), color)

    assert one.shape == raw.shape
    assert (one == two).all()
    assert (raw == before).all()
    assert name == "none" or (one != raw).any()


@pytest.mark.parametrize(("name", "reach", "flips"), [("shift", 2, False), ("flip-crop", 4, True)])
@pytest.mark.parametrize("color", ["L", "RGB"])
def test_a_crop_is_a_window_of_the_padded_picture_and_every_place_occurs(name, reach, flips, color):
    raw = np.repeat(pictures(color)[:1], 4000, 0)
    result = find_augment(name)(raw, np.random.default_rng(0), color)

    windows = {}
    for flipped in (False, True) if flips else (False,):
        image = raw[0][:, ::-1] if flipped else raw[0]
        padded = np.pad(image, [(reach, reach), (reach, reach)] + [(0, 0)] * (image.ndim - 2))
        for top in range(2 * reach + 1):
            for left in range(2 * reach + 1):
                windows[padded[top : top + 9, left : left + 7].tobytes()] = (flipped, top, left)
    found = [windows[image.tobytes()] for image in result]  # a KeyError means that it is no window

    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == (2 if flips else 1) * (2 * reach + 1) ** 2
    assert counts.min() > 0.3 * counts.mean()


def test_feature_maps_repeat_their_border():
    raw = np.full((50, 1, 6, 6), -13.8, np.float32)

    assert (find_augment("shift")(raw, np.random.default_rng(0), None) == raw).all()
    np.testing.assert_allclose(find_augment("affine")(raw, np.random.default_rng(0), None), raw, rtol=1e-5)


def test_an_affine_map_of_no_size_changes_nothing():
    raw = pictures("RGB")

    result = affine(raw, np.random.default_rng(0), "RGB", degrees=0, scale=0, shear=0, pixels=0)

    np.testing.assert_allclose(result, raw, atol=1e-3)


def test_an_affine_map_moves_a_dot_by_at_most_its_limits():
    raw = np.zeros((200, 21, 21), np.uint8)
    raw[:, 9:12, 9:12] = 200  # in the middle, so rotation, zoom and shear keep its centre
    result = affine(raw, np.random.default_rng(0), "L", pixels=2.0)
    rows, columns = np.mgrid[:21, :21]
    mass = result.sum((1, 2))
    centre = np.stack([(result * axis).sum((1, 2)) / mass for axis in (rows, columns)])

    assert abs(centre - 10).max() < 2 * 1.35  # the shift itself is zoomed by up to 1 / 0.9 and sheared
    assert abs(centre - 10).max() > 1.5
    assert result.max() <= 200.01


def test_augmentations_of_samples_that_are_not_pictures_are_refused():
    with pytest.raises(DataError, match=r"samples have shape \(4,\), expected pictures"):
        find_augment("shift")(np.zeros((3, 4)), np.random.default_rng(0), None)
    with pytest.raises(OptionError, match="Did you mean 'affine'"):
        find_augment("afine")


def test_schedules_start_peak_and_end_where_their_description_says():
    assert [find_schedule("step")(t) for t in (0, 0.49, 0.5, 0.74, 0.75, 0.99)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    assert find_schedule("cosine")(0.5) == pytest.approx(0.5)
    assert find_schedule("cosine")(1.0) == pytest.approx(0.0)
    assert find_schedule("one-cycle")(0.0) == pytest.approx(0.04)
    assert find_schedule("one-cycle")(0.3) == pytest.approx(1.0)
    assert find_schedule("one-cycle")(1.0) == pytest.approx(1e-4)
    assert all(0 < find_schedule(name)(t / 100) <= 1 for name in SCHEDULES for t in range(100))


def test_one_cycle_is_that_of_torch():
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torch_schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=1001, pct_start=0.3, div_factor=25, final_div_factor=400
    )
    for step in range(1000):
        ours = find_schedule("one-cycle")(step / 1000)
        assert ours == pytest.approx(torch_schedule.get_last_lr()[0], abs=0.01)
        optimizer.step()
        torch_schedule.step()


def test_the_rate_rises_linearly_during_the_warm_up():
    factors = [factor(SCHEDULES["cosine"], step, total=20, warmup=4) for step in range(20)]

    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4] == 1.0
    assert factors[12] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert factors == sorted(factors[:4]) + sorted(factors[4:], reverse=True)
