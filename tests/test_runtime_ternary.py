"""TernaryGemm and TernaryConv in ONNX Runtime against float64 and torch: shapes, geometries, groups, and bad fields."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gossamer.artifact import Floats, Ints, Stored, layouts
from gossamer.errors import OptionError
from gossamer.runtime import Port, build, ternary
from gossamer.runtime.windows import Windows
from operator_session import session


def drawn(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_weight(*shape, values=(-0.5, 1.5), per_output=True, seed=0):
    """A dense float64 array and its fields."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, shape).astype(np.uint8)
    scale = rng.uniform(0.5, 2, shape[0] if per_output else 1).astype(np.float32)
    fields = ternary.packed(codes, np.array(values, np.float32), scale)
    dense = np.array([0, *values])[codes] * scale.astype(np.float64).reshape(-1, *[1] * (len(shape) - 1))
    return dense, fields


def convolved(x, dense, bias=None, *, strides=(1, 1), dilations=(1, 1), pads=(0, 0, 0, 0), group=1):
    """torch's convolution in float64."""
    top, left, bottom, right = pads
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    given = None if bias is None else torch.from_numpy(bias).double()
    return F.conv2d(padded, torch.from_numpy(dense), given, strides, 0, dilations, group).numpy()


@pytest.mark.parametrize("shape", [(1, 1), (10, 84), (17, 19), (130, 53), (300, 1025)])
@pytest.mark.parametrize("batch", [0, 1, 2, 33])
def test_a_product_is_that_of_the_dense_weight(variant, shape, batch):
    dense, fields = random_weight(*shape)
    x, bias = drawn(batch, shape[1]), drawn(shape[0], seed=2)

    got = session(ternary.model(fields, bias), threads=2).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, x.astype(np.float64) @ dense.T + bias, rtol=1e-5, atol=1e-4)


def test_a_product_takes_any_number_of_axes_and_one_scale():
    dense, fields = random_weight(20, 30, per_output=False)
    given = dict(zip(ternary.NAMES, fields.arrays, strict=True))
    node = ternary.node(["x", *given], "y", (20, 30))
    x = drawn(2, 3, 30)

    ports = [Port("x", (2, 3, 30), "float32")], [Port("y", (2, 3, 20), "float32")]
    got = session(build.model([node], *ports, given)).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, x @ dense.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 17, 64])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_is_that_of_the_dense_weight(variant, channels, batch):
    dense, fields = random_weight(37, channels, 3, 3)
    x, bias = drawn(batch, channels, 11, 9), drawn(37, seed=2)

    got = session(ternary.model(fields, bias, windows=Windows(pads=(1, 0, 2, 1))), threads=2).run(
        None, {"x": x}
    )[0]

    wanted = convolved(x, dense, bias, pads=(1, 0, 2, 1))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 4)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 2), (1, 3)])
@pytest.mark.parametrize("group", [1, 2, 6])
def test_strides_dilations_kernels_and_groups(strides, dilations, kernel, group):
    dense, fields = random_weight(24, 30 // group, *kernel)
    x = drawn(2, 30, 23, 20)
    options = {"strides": strides, "dilations": dilations, "pads": (2, 1, 0, 3), "group": group}

    got = session(ternary.model(fields, windows=Windows(**options))).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, convolved(x, dense, **options), rtol=1e-5, atol=1e-4)


def test_a_convolution_of_many_rows_fills_its_ring_again():
    dense, fields = random_weight(5, 40, 3, 3)
    x = drawn(2, 40, 90, 70)

    got = session(ternary.model(fields, windows=Windows(pads=(1, 1, 1, 1))), threads=2).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, convolved(x, dense, pads=(1, 1, 1, 1)), rtol=1e-5, atol=1e-4)


def test_a_weight_takes_two_bits():
    _, fields = random_weight(256, 128, 3, 3)

    assert fields.codes.nbytes == 256 * 128 * 9 // 4


def stored_uniform(codes, scale, offset=1):
    shifted = (codes + offset).astype(np.uint8)
    fields = {"codes": Ints(shifted.reshape(-1), 2), "scale": Floats(np.array(scale, np.float32))}
    return Stored("uniform", codes.shape, fields, options={"offset": offset})


def stored_codebook(codes, centroids):
    fields = {"codes": Ints(codes.reshape(-1), 2), "centroids": Floats(np.array(centroids, np.float32))}
    return Stored("codebook", codes.shape, fields)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("layout", "parts"),
    [
        (stored_uniform, ([0.3],)),
        (stored_codebook, ([-0.2, 0.0, 0.7],)),
        (stored_codebook, ([0.5, 0.7, 0.0],)),
    ],
)
def test_stored_weights_become_fields(layout, parts, transposed):
    codes = np.random.default_rng(0).integers(0, 3, (20, 30)) - (layout is stored_uniform)
    stored = layout(codes.astype(np.int64), *parts)
    dense = layouts.rebuild(stored).astype(np.float64)

    fields = ternary.of(stored, transposed=transposed)
    assert fields is not None
    matrix = dense.T if transposed else dense
    x = drawn(3, matrix.shape[1])

    got = session(ternary.model(fields)).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, x @ matrix.T, rtol=1e-5, atol=1e-5)


def test_a_scale_per_output_is_kept():
    codes = np.array([[1, 0, -1], [0, 1, 1]])

    fields = ternary.of(stored_uniform(codes, [2.0, 3.0]))

    assert fields is not None
    np.testing.assert_array_equal(fields.scale, [2, 3])
    np.testing.assert_array_equal(fields.codes, [[0b01_00_10], [0b10_10_00]])  # code 1 stands for -1


@pytest.mark.parametrize(
    "stored",
    [
        stored_uniform(np.array([[-2, 0, 1]]), [1.0], offset=2),
        stored_codebook(np.array([[0, 1, 2]]), [-1.0, 0.5, 1.0]),
    ],
)
def test_other_values_are_no_ternary_weight(stored):
    assert ternary.of(stored) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: {"codes": f.codes[:, :3]}, "'codes' has 60 bytes, expected 20 x 8"),
        (lambda f: {"codes": f.codes | 255}, "code 3 stands at output 0, input 0.*damaged"),
        (lambda f: {"values": f.values[:1]}, "input 'values' has 1 elements, expected 2"),
        (lambda f: {"codes": f.codes[:0]}, "0 bytes for 0 outputs"),
    ],
)
def test_a_damaged_field_stops_the_session_with_a_message(change, said):
    _, fields = random_weight(20, 30)

    with pytest.raises(Exception, match=f"TernaryGemm node 'layer'.*{said}"):
        session(ternary.model(dataclasses.replace(fields, **change(fields))))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strides": (0, 1)}, "'strides' is 0, expected 1 to 2\\^20"),
        ({"group": 3}, "20 outputs cannot be cut into 3 groups"),
        ({"pads": (0, 0, 2**40, 0)}, "'pads' is 1099511627776"),
        ({"dilations": (1,)}, "attribute 'dilations' must be a list of 2 integers"),
    ],
)
def test_geometries_that_no_convolution_has_are_refused(options, said):
    _, fields = random_weight(20, 6, 3, 3)

    with pytest.raises(Exception, match=f"TernaryConv node 'layer'.*{said}"):
        session(ternary.model(fields, windows=Windows(**options)))


def test_an_input_or_scale_that_does_not_fit_is_an_error_and_the_session_lives():
    _, fields = random_weight(20, 6, 3, 3)
    running = session(ternary.model(fields))
    scaled = session(ternary.model(dataclasses.replace(fields, scale=fields.scale[:7])))

    with pytest.raises(Exception, match="an input of 2 x 5 is smaller than the kernel"):
        running.run(None, {"x": drawn(1, 6, 2, 5)})
    with pytest.raises(Exception, match="an input of 0 x 5 is smaller than the kernel"):
        running.run(None, {"x": drawn(1, 6, 0, 5)})
    with pytest.raises(Exception, match="input 'scale' has 7 elements, expected 1 or 20"):
        scaled.run(None, {"x": drawn(1, 6, 5, 5)})
    assert running.run(None, {"x": drawn(1, 6, 5, 5)})[0].shape == (1, 20, 3, 3)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (2, 3, 0, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(OptionError, match="ternary weight: received codes"):
        ternary.packed(np.zeros(shape, np.uint8), np.ones(2, np.float32), np.ones(1, np.float32))
