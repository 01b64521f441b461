"""BinaryConv in ONNX Runtime against torch's convolution of signs: geometries, padding, products, and bad fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gossamer.errors import OptionError
from gossamer.runtime import binary
from operator_session import session


def drawn(*shape, seed=0):
    """Floats of both signs and zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape).astype(np.float32)
    return values * (rng.random(shape) > 0.1)


def signs(values):
    return torch.where(torch.from_numpy(values) >= 0, 1.0, -1.0)


def expected(x, weight, scale, offset, *, stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), pad_value=0):
    top, left, bottom, right = pads
    padded = F.pad(signs(x), (left, right, top, bottom), value=float(pad_value))
    v = F.conv2d(padded, signs(weight), stride=stride, dilation=dilation)
    return (v * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(offset)[:, None, None]).numpy()


def parameters(outputs):
    """Scales and offsets in which the sums are exact."""
    rng = np.random.default_rng(1)
    return (rng.integers(-8, 9, (2, outputs)) / 4).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3, 64, 100])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_it_equals_torch_on_signs(variant, channels, pad_value):
    x, weight = drawn(2, channels, 11, 9), drawn(37, channels, 3, 3, seed=2)
    options = {"pads": (1, 0, 2, 1), "pad_value": pad_value}

    got = session(binary.model(weight, *parameters(37), **options), 2).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, expected(x, weight, *parameters(37), **options))


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 2)])
def test_strides_dilations_and_kernels(stride, dilation, kernel):
    x, weight = drawn(1, 70, 13, 14), drawn(16, 70, *kernel, seed=2)
    options = {"stride": stride, "dilation": dilation, "pads": (2, 2, 2, 2)}

    got = session(binary.model(weight, *parameters(16), **options)).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, expected(x, weight, *parameters(16), **options))


@pytest.mark.parametrize("batch", [0, 1, 5, 70])
def test_a_matrix_is_a_product_of_rows(batch):
    x, weight = drawn(batch, 130), drawn(50, 130, seed=2)
    scale, offset = parameters(50)

    got = session(binary.model(weight, scale, offset)).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, (signs(x) @ signs(weight).T).numpy() * scale + offset)


def test_zero_counts_as_plus_one_and_nan_as_minus_one():
    x = np.array([[0.0, -0.0, np.nan, -1e-30]], np.float32)
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)

    for column, wanted in enumerate([1, 1, -1, -1]):
        weight = np.ones((1, 1), np.float32)
        got = session(binary.model(weight, one, none)).run(None, {"x": x[:, column : column + 1]})[0]
        assert got.item() == wanted


def test_a_weight_takes_one_bit():
    assert binary.packed(drawn(256, 256, 3, 3)).nbytes == 256 * 256 * 9 // 8


def test_filters_that_do_not_fit_stop_the_session():
    weight = drawn(16, 40, 3, 3)
    fields = {
        "filters": binary.packed(weight),
        "scale": np.ones(16, np.float32),
        "offset": np.zeros(16, np.float32),
    }
    for geometry, said in (
        (binary.Geometry(48, (3, 3)), "the filters have 720 bytes, expected 16 x 9 x 6"),
        (binary.Geometry(0, (3, 3)), "'channels' is 0"),
        (binary.Geometry(40, (3, 3), pad_value=2), "'pad_value' is 2, expected 0 or 1"),
    ):
        node = binary.node("BinaryConv", ["x", *fields], "y", geometry, name="conv")
        with pytest.raises(Exception, match=f"BinaryConv node 'conv': {said}"):
            session(one_node(node, fields))


def one_node(node, fields):
    from gossamer.runtime import Port, build

    ports = [Port("x", ("n", 40, "h", "w"), "float32")], [Port("y", ("n", 16, "a", "b"), "float32")]
    return build.model([node], *ports, fields)


def test_fields_and_inputs_that_do_not_fit_are_errors():
    weight = drawn(16, 40, 3, 3)
    fields = {
        "filters": binary.packed(weight),
        "scale": np.ones(16, np.float32),
        "offset": np.zeros(3, np.float32),
    }
    short = binary.node("BinaryConv", ["x", *fields], "y", binary.Geometry(40, (3, 3)), name="conv")
    running = session(binary.model(weight, *parameters(16)))

    with pytest.raises(Exception, match="'offset' has 3 elements, expected 16"):
        session(one_node(short, fields))
    with pytest.raises(Exception, match="an input of 2 x 5 is smaller than the kernel"):
        running.run(None, {"x": drawn(1, 40, 2, 5)})


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (2, 3, 0, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(OptionError, match="binary filters: received shape"):
        binary.packed(np.zeros(shape, np.float32))
