"""The operators around convolutions of signs: bits made, pooled and read, thresholds, and fields that do not fit."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional as F

from gossamer import native
from gossamer.runtime import Port, binary, build


def session(nodes, ports, fields):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(str(native.path()))
    x, y = ports
    model = build.model(nodes, [Port("x", x, "float32")], [Port("y", y, "float32")], fields)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def node(op, inputs, output, **lists):
    return build.node(op, inputs, [output], name=op, domain=build.DOMAIN, lists=lists)


def drawn(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) > 0.1)


def signs(values):
    return np.where(values >= 0, 1, -1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("picture", [(), (7, 5), (9, 17)])
def test_bits_are_read_as_they_were_made(channels, picture):
    x, product = drawn(3, channels, *picture), (int(not picture),)
    nodes = [
        node("BinarySign", ["x"], "bits", product=product),
        node("BinaryFloats", ["bits"], "y", channels=(channels,), product=product),
    ]

    got = session(nodes, (x.shape, x.shape), {}).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, signs(x))


@pytest.mark.parametrize(("kernel", "stride", "pads"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 3), (1, 1))])
def test_pooling_takes_the_largest_sign_and_turns_channels_over(kernel, stride, pads):
    x, flips = drawn(2, 70, 9, 8), np.arange(128) % 3 == 0
    flips[70:] = False
    nodes = [
        node("BinarySign", ["x"], "bits", product=(0,)),
        node(
            "BinaryMaxPool", ["bits", "flips"], "pooled", kernel_shape=kernel, strides=stride, pads=pads * 2
        ),
        node("BinaryFloats", ["pooled"], "y", channels=(70,), product=(0,)),
    ]
    wanted = F.max_pool2d(torch.from_numpy(signs(x)), kernel, stride, pads).numpy()
    fields = {"flips": np.packbits(flips, bitorder="little")}

    got = session(nodes, (x.shape, wanted.shape), fields).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, wanted * np.where(flips[:70], -1, 1)[:, None, None])


@pytest.mark.parametrize("picture", [(), (6, 5)])
def test_a_threshold_is_the_least_sum_of_sign_plus_one(picture):
    kernel = (3, 3) if picture else ()
    x, weight = drawn(2, 40, *picture), drawn(21, 40, *kernel, seed=1)
    thresholds = (np.arange(21) * 4 - 40).astype(np.int32)
    around = (1, 1, 1, 1) if picture else (0, 0, 0, 0)
    geometry = binary.Geometry(40, kernel or (1, 1), pads=around, product=not picture)
    fields = {"filters": binary.packed(weight), "thresholds": thresholds}
    nodes = [
        binary.node("BinaryConvSign", ["x", *fields], "bits", geometry, name="conv"),
        node("BinaryFloats", ["bits"], "y", channels=(21,), product=(int(not picture),)),
    ]
    left, right = torch.from_numpy(signs(x)), torch.from_numpy(signs(weight))
    sums = F.conv2d(left, right, padding=1) if picture else left @ right.T

    got = session(nodes, (x.shape, tuple(sums.shape)), fields).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, signs(sums.numpy() - thresholds.reshape(-1, *[1] * len(picture))))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            binary.node("BinaryConvSign", ["x", "f", "two"], "b", binary.Geometry(8)),
            "'thresholds' has 2 elements",
        ),
        (
            binary.node("BinaryConvSign", ["x", "f", "ok"], "b", binary.Geometry(9)),
            "the filters have 3 bytes",
        ),
        (
            binary.node(
                "BinaryConvSign", ["x", "f", "ok"], "b", binary.Geometry(8, product=True, flatten=True)
            ),
            "exclude each other",
        ),
        (
            node("BinaryMaxPool", ["bits", "f"], "b", kernel_shape=(2, 2), strides=(1, 1), pads=(0, 0, 0, 0)),
            "'flips' has 3 bytes, expected whole words",
        ),
        (
            node(
                "BinaryMaxPool",
                ["bits", "eight"],
                "b",
                kernel_shape=(2, 2),
                strides=(1, 1),
                pads=(2, 0, 0, 0),
            ),
            "'pads' must be smaller",
        ),
        (
            node(
                "BinaryMaxPool",
                ["bits", "eight"],
                "b",
                kernel_shape=(2, 2),
                strides=(0, 1),
                pads=(0, 0, 0, 0),
            ),
            "strides is 0",
        ),
    ],
)
def test_fields_that_do_not_fit_stop_the_session(made, said):
    fields = {
        "f": np.zeros((3, 1, 1, 1), np.uint8),
        "two": np.zeros(2, np.int32),
        "ok": np.zeros(3, np.int32),
        "eight": np.zeros(8, np.uint8),
    }
    nodes = [
        node("BinarySign", ["x"], "bits", product=(0,)),
        made,
        node("BinaryFloats", ["b"], "y", channels=(3,), product=(0,)),
    ]

    with pytest.raises(Exception, match=said):
        session(nodes, ((1, 8, 4, 4), ("n", 3, "h", "w")), fields)


def test_inputs_that_do_not_fit_are_errors():
    nodes = [
        node("BinarySign", ["x"], "bits", product=(0,)),
        node("BinaryFloats", ["bits"], "y", channels=(65,), product=(0,)),
    ]
    running = session(nodes, (("n", "c", "h", "w"), ("n", 65, "h", "w")), {})

    with pytest.raises(Exception, match="has 4 axes and 8 elements on the last, expected 4 and 16"):
        running.run(None, {"x": drawn(1, 8, 2, 2)})
    assert running.run(None, {"x": drawn(0, 65, 2, 2)})[0].shape == (0, 65, 2, 2)
