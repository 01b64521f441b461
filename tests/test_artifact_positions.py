"""Positions of a sparse tensor: exact for every mask, and small where the mask has structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gossamer import codec
from gossamer.artifact.positions import decode_positions, encode_positions


def coded_bytes(fields):
    return sum(len(codec.choose(field.values, field.width).payload) for field in fields.values())


@settings(max_examples=150, deadline=None)
@given(arrays(bool, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)))
def test_decoding_gives_every_position_of_the_mask_back(mask):
    fields, options = encode_positions(mask)

    assert decode_positions(fields, options, mask.shape).tolist() == np.flatnonzero(mask).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_dead_rows_and_columns_do_not_change_what_is_decoded(seed, density, dead_rows, dead_columns):
    rng = np.random.default_rng(seed)
    mask = rng.random((30, 70)) < density
    mask[rng.random(30) < dead_rows] = False
    mask[:, rng.random(70) < dead_columns] = False

    fields, options = encode_positions(mask)

    assert decode_positions(fields, options, mask.shape).tolist() == np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("density", [0.01, 0.05, 0.11, 0.3])
def test_random_positions_cost_close_to_their_entropy(density):
    mask = np.random.default_rng(0).random((300, 784)) < density

    fields, _ = encode_positions(mask)

    p = mask.mean()
    entropy_bytes = mask.size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
    assert coded_bytes(fields) < 1.02 * entropy_bytes + 40


@pytest.mark.parametrize("axis", [0, 1])
def test_dead_neurons_are_nearly_free(axis):
    rng = np.random.default_rng(1)
    alive = rng.random((100, 100)) < 0.1
    mask = np.zeros((400, 400), bool)
    chosen = np.sort(rng.permutation(400)[:100])
    if axis == 0:
        mask[chosen, :100] = alive
    else:
        mask[:100, chosen] = alive

    whole, _ = encode_positions(mask)
    core, _ = encode_positions(alive)

    assert coded_bytes(whole) < coded_bytes(core) + 120


def test_a_column_of_entries_is_scanned_down_the_columns():
    mask = np.zeros((500, 60), bool)
    mask[:, 7] = np.random.default_rng(2).random(500) < 0.5
    mask[::3, 50] = True
    mask[:5] |= np.eye(5, 60, dtype=bool)  # no dead column shortcut for these

    fields, options = encode_positions(mask)

    assert coded_bytes(fields) < 130
    assert decode_positions(fields, options, mask.shape).tolist() == np.flatnonzero(mask).tolist()
