"""The rules that rebuild a dense array, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from artifact_samples import codebook, dense, sparse, uniform
from gossamer.artifact import Floats, Stored, Tensor, layouts, rebuild
from gossamer.artifact.floats import bfloat16_bits, round_to, to_bytes
from gossamer.errors import ArtifactError


def test_dense_gives_its_values_back():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)

    assert np.array_equal(layouts.rebuild(dense(values)), values)


@pytest.mark.parametrize("shape", [(5,), (5, 7), (4, 3, 2, 2), (1, 9), ()])
@pytest.mark.parametrize("granularity", ["tensor", "channel", 3, 4])
def test_uniform_is_code_minus_offset_times_the_scale_of_its_row_or_group(shape, granularity):
    rng = np.random.default_rng(0)
    rows = shape[0] if shape else 1
    columns = int(np.prod(shape[1:]))
    codes = rng.integers(0, 256, shape).astype(np.uint8)
    options = {"offset": 128}
    if granularity == "tensor":
        scale, group = rng.random(1), None
    elif granularity == "channel":
        scale, group = rng.random(rows), None
    else:
        scale, group = rng.random(rows * -(-columns // granularity)), granularity
        options["group"] = granularity
    scale = scale.astype(np.float32)

    array = layouts.rebuild(uniform(codes, scale, 8, **options)).reshape(rows, columns)

    for o in range(rows):
        for i in range(columns):
            if group:
                step = scale[o * -(-columns // group) + i // group]
            else:
                step = scale[o % scale.size]
            assert array[o, i] == np.float32(float(codes.reshape(rows, columns)[o, i]) - 128) * step


@pytest.mark.parametrize("width", [1, 5, 8, 11, 16])
def test_codebook_looks_every_code_up(width):
    rng = np.random.default_rng(1)
    centroids = rng.normal(size=min(2**width, 300)).astype(np.float32)
    codes = rng.integers(0, centroids.size, (6, 50)).astype(np.uint8 if width <= 8 else np.uint16)

    array = layouts.rebuild(codebook(codes, centroids, width))

    assert array.tolist() == [[centroids[code] for code in row] for row in codes.tolist()]


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(30,), (12, 40), (8, 3, 5, 5), (1, 64), ()])
def test_sparse_puts_its_entries_in_c_order(shape, density):
    rng = np.random.default_rng(2)
    mask = np.asarray(rng.random(shape) < density)
    values = rng.normal(size=int(mask.sum())).astype(np.float32)

    array = layouts.rebuild(sparse(mask, dense(values)))

    expected = np.zeros(shape, np.float32)
    expected[mask] = values
    assert array.shape == shape
    assert np.array_equal(array, expected)


def test_sparse_of_sparse_keeps_the_innermost_entries():
    outer, inner = np.array([[True, False, True], [True, True, False]]), np.array([False, True, True, False])

    array = layouts.rebuild(sparse(outer, sparse(inner, dense(np.array([5.0, 6.0], np.float32)))))

    assert array.tolist() == [[0, 0, 5], [6, 0, 0]]


def test_the_rebuilt_array_is_transposed_and_takes_the_initialisers_type():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    stored = dense(values)

    assert np.array_equal(rebuild(Tensor("t", "t", stored, (2, 0, 1))), values.transpose(2, 0, 1))
    assert rebuild(Tensor("t", "t", stored, None, "float16")).dtype == np.float16
    assert rebuild(Tensor("t", "t", stored, None, "float64")).dtype == np.float64
    assert rebuild(Tensor("t", "t", stored, None, "bfloat16")).dtype == np.uint16


def test_bfloat16_rounds_as_torch_does():
    import torch

    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    values = np.concatenate(
        [bits.view(np.float32), np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-45], np.float32)]
    )

    ours = round_to(values, "bfloat16")

    theirs = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(ours, theirs, equal_nan=True)
    assert np.array_equal(np.signbit(ours[~np.isnan(ours)]), np.signbit(theirs[~np.isnan(theirs)]))


def test_a_rounded_value_is_written_exactly():
    values = np.random.default_rng(4).normal(size=1000).astype(np.float32)

    for dtype in ("float16", "bfloat16"):
        once = round_to(values, dtype)
        assert np.array_equal(round_to(once, dtype), once)
        assert len(to_bytes(once, dtype)) == 2000
    assert bfloat16_bits(np.float32([1.0])).tolist() == [0x3F80]


def test_a_value_that_float16_cannot_hold_is_an_error():
    with pytest.raises(ArtifactError, match=r"65504.*bfloat16"):
        round_to(np.float32([1.0, 70000.0]), "float16")


def test_an_unknown_float_type_suggests_the_nearest():
    with pytest.raises(ArtifactError, match="'bfloat16'"):
        round_to(np.float32([1.0]), "bfloat6")


def test_every_layout_is_documented_in_the_specification():
    from importlib import resources

    page = resources.files("gossamer.artifact").joinpath("spec.md").read_text()

    for name in layouts.__all__:
        assert f"| `{name}` |" in page


def test_bfloat16_fields_keep_the_shape_of_stored():
    stored = Stored("dense", (2, 2), {"values": Floats(np.float32([[1, 2], [3, 4]]), "bfloat16")})

    assert layouts.rebuild(stored).shape == (2, 2)
