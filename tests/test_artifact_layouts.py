"""The rules that rebuild a dense array, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from artifact_samples import codebook, dense, integers, sparse, uniform
from gossamer.artifact import Floats, Ints, Stored, Tensor, layouts, rebuild
from gossamer.artifact.floats import bfloat16_bits, round_to, to_bytes
from gossamer.errors import ArtifactError, HeaderError


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


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2), ()])
@pytest.mark.parametrize("width", [1, 8, 16])
def test_integers_are_codes_minus_their_offset(shape, width):
    codes = np.random.default_rng(1).integers(0, 2**width, shape)

    array = layouts.rebuild(integers(codes, width, 2**width // 2))

    assert array.dtype == np.float32
    assert array.tolist() == (codes - 2**width // 2).tolist()


def test_integers_of_32_bits_are_exact():
    numbers = np.array([2**31 - 1, -(2**31) + 1, 2**24 + 1, -1, 0])
    high, low = np.divmod(numbers + 2**31 - 1, 2**16)
    stored = integers(low, 16, 2**31 - 1, high)

    assert layouts.rebuild(stored).tolist() == numbers.tolist()
    assert rebuild(Tensor("t", "t", stored, None, "int32")).tolist() == numbers.tolist()


def test_the_centroids_of_a_codebook_may_be_a_node_of_their_own():
    codes = np.array([[0, 2], [1, 2]], np.uint8)
    table = integers(np.array([0, 100, 254], np.uint8), 8, 127)

    stored = Stored("codebook", (2, 2), {"codes": Ints(codes, 2)}, {"centroids": table})

    assert rebuild(Tensor("t", "t", stored, None, "int8")).tolist() == [[-127, 127], [-27, 127]]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_an_initialiser_of_integers_takes_its_whole_range_and_nothing_else(dtype):
    limits = np.iinfo(dtype)
    ends = np.array([limits.min, limits.max])
    high, low = np.divmod(ends - limits.min, 2**16)
    ends_stored = Stored(
        "integers", (2,), {"codes": Ints(low, 16), "high": Ints(high, 16)}, options={"offset": -limits.min}
    )

    assert rebuild(Tensor("t", "t", ends_stored, None, dtype)).tolist() == ends.tolist()
    for wrong in (
        limits.min - 1.0 if limits.min > -(2**31) else -(2.0**32),
        limits.max + 1.0,
        np.nan,
        np.inf,
        0.5,
    ):
        with pytest.raises(HeaderError, match=f"tensor 't'.*{dtype}"):
            rebuild(Tensor("t", "t", dense(np.array([0, wrong], np.float32)), None, dtype))


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
