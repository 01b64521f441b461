"""Ternary weights that meet 8-bit inputs: the operators against whole numbers, and a calibrated network that runs on them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, runtime
from gossamer.artifact import Ints, Stored
from gossamer.methods import TWN
from gossamer.runtime import breakeven, build, conv_trial, lower_ternary_int8, ternary, ternary_int8
from gossamer.runtime.windows import Windows
from operator_session import session


def random_weight(*shape):
    """int64 of -1, 0 and 1, and the fields."""
    codes = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    return np.array([0, -1, 1])[codes], ternary.packed(
        codes, np.array([-1, 1], np.float32), np.ones(1, np.float32)
    )


def drawn(dtype, *shape):
    ends = np.iinfo(dtype)
    return np.random.default_rng(1).integers(ends.min, ends.max + 1, shape).astype(dtype)


def as_unsigned(zero_point, dtype):
    return zero_point + (128 if dtype == "int8" else 0)


@pytest.mark.parametrize("shape", [(1, 1), (10, 84), (17, 19), (130, 53), (300, 1025)])
@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("uint8", 255), ("int8", -7)])
@pytest.mark.parametrize("batch", [0, 1, 2, 9, 35])
def test_a_product_is_that_of_whole_numbers(variant, shape, dtype, zero_point, batch):
    dense, fields = random_weight(*shape)
    x = drawn(dtype, batch, shape[1])
    scale, bias = np.full(shape[0], 0.5, np.float32), np.arange(shape[0], dtype=np.float32)

    model = ternary_int8.model(fields, scale, bias, as_unsigned(zero_point, dtype), dtype=dtype)
    got = session(model, threads=2).run(None, {"x": x})[0]

    np.testing.assert_array_equal(got, (x.astype(np.int64) - zero_point) @ dense.T * 0.5 + bias)


def test_sums_of_the_largest_numbers_are_exact(variant):
    fields = ternary.packed(
        np.full((16, 4096), 2, np.uint8), np.array([-1, 1], np.float32), np.ones(1, np.float32)
    )
    model = ternary_int8.model(fields, np.ones(16, np.float32), np.zeros(16, np.float32), 0)

    got = session(model).run(None, {"x": np.full((5, 4096), 255, np.uint8)})[0]

    assert (got == 255 * 4096).all()


@pytest.mark.parametrize(
    ("channels", "kernel", "windows"),
    [
        (1, (1, 1), Windows()),
        (3, (3, 3), Windows(pads=(1, 1, 1, 1))),
        (17, (5, 2), Windows(strides=(2, 3), pads=(1, 0, 2, 1))),
        (6, (1, 3), Windows(dilations=(2, 3), group=2)),
        (8, (3, 3), Windows(pads=(2, 2, 2, 2), group=8)),
    ],
)
@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 131), ("int8", 4)])
def test_a_convolution_is_that_of_whole_numbers(variant, channels, kernel, windows, dtype, zero_point):
    dense, fields = random_weight(24, channels // windows.group, *kernel)
    x = drawn(dtype, 3, channels, 19, 13)
    scale, bias = np.linspace(1, 24, 24, dtype=np.float32), np.arange(24, dtype=np.float32)

    model = ternary_int8.model(
        fields, scale, bias, as_unsigned(zero_point, dtype), dtype=dtype, windows=windows
    )
    got = session(model, threads=2).run(None, {"x": x})[0]

    top, left, bottom, right = windows.pads
    padded = F.pad(torch.from_numpy(x).double() - zero_point, (left, right, top, bottom))
    wanted = F.conv2d(
        padded, torch.from_numpy(dense).double(), None, windows.strides, 0, windows.dilations, windows.group
    )
    np.testing.assert_allclose(got, wanted.numpy() * scale[:, None, None] + bias[:, None, None], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"zero_point": 256}, "'zero_point' is 256, expected 0 to 255"),
        ({"scale": np.ones(3, np.float32)}, "input 'scale' has 3 elements, expected 1 or 20"),
        ({"bias": np.ones(3, np.float32)}, "input 'bias' has 3 elements, expected 20"),
        ({"codes": np.full((20, 8), 255, np.uint8)}, "code 3 stands at output 0, input 0"),
        ({"codes": np.zeros((20, 7), np.uint8)}, "'codes' has 140 bytes, expected 20 x 8"),
        ({"x": np.zeros((1, 31), np.uint8)}, "'x' has 31 elements on its last axis, expected 32"),
        ({"dtype": "float32"}, "'x' has elements of type 1, expected 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    _, fields = random_weight(20, 32)
    given = {"codes": fields.codes, "scale": np.ones(20, np.float32), "bias": np.zeros(20, np.float32)}
    given |= {name: change[name] for name in given if name in change}
    dtype = change.get("dtype", "uint8")
    node = ternary_int8.node(["x", *given], "y", (20, 32), change.get("zero_point", 0))
    ports = [runtime.Port("x", (1, "n"), dtype)], [runtime.Port("y", (1, 20), "float32")]

    with pytest.raises(Exception, match=said):
        session(build.model([node], *ports, given)).run(
            None, {"x": change.get("x", np.zeros((1, 32), dtype))}
        )


class Net(nn.Module):
    """A stem of floats, a padded convolution, one with a stride, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 20, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.down = nn.Conv2d(20, 24, 3, stride=2)
        self.hidden = nn.Linear(24 * 6 * 6, 50)
        self.out = nn.Linear(50, 10)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.relu(self.down(self.relu(self.norm(self.inner(x)))))
        return self.out(self.relu(self.hidden(x.flatten(1))))


@pytest.fixture(scope="module", params=["tensor", "channel"])
def packed(request, tmp_path_factory) -> bytes:
    data = gs.load_data("digits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net().eval()
    for name in ("inner", "down", "hidden"):
        formats.attach(getattr(model, name), "weight", TWN(granularity=request.param))
    gs.apply(model, [gs.Calibrate()], data)
    path = tmp_path_factory.mktemp("ternary") / "net.goss"
    gs.pack(model, path, data.batch(2))
    return path.read_bytes()


@pytest.mark.parametrize("batch", [1, 40])
def test_a_calibrated_network_gives_the_same_codes(packed, variant, batch):
    x = gs.load_data("digits").batch(batch)

    ours, dense = (runtime.open(packed, kernels=kernels) for kernels in ("ternary-int8", "dense"))
    got, wanted = ours(x), dense(x)

    rows = {row.weight: row.kernel for row in ours.explain()}
    assert rows["inner.weight"] == rows["down.weight"] == "TernaryConvInt8"
    assert rows["hidden.weight"] == "TernaryGemmInt8"
    # both sum exactly; a float32 multiplier may round to the neighbouring code
    assert np.abs(got - wanted).max() <= 0.02 * np.abs(wanted).max()
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.97


@pytest.mark.parametrize(("ours", "kernel"), [(0.5, "Ternary"), (0.9, "onnxruntime integers")])
def test_the_faster_kernel_runs(packed, monkeypatch, ours, kernel):
    def curve(name, threads, measure, **_):
        return SimpleNamespace(ms=lambda size, samples: ours if name.startswith("ternary-int8") else 1.0)

    monkeypatch.setattr(breakeven, "curve", curve)
    monkeypatch.setattr(lower_ternary_int8, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr("gossamer.runtime.exact.options", lambda: ())  # of a processor with exact kernels

    rows = {row.weight: row for row in runtime.open(packed).explain()}

    assert all(
        rows[name].kernel.startswith(kernel) for name in ("inner.weight", "down.weight", "hidden.weight")
    )
    assert rows["hidden.weight"].ms is not None


def test_products_and_convolutions_are_measured_as_they_run(monkeypatch):
    monkeypatch.setattr(breakeven, "SIDES", (32, 64))
    monkeypatch.setattr(breakeven, "SECONDS", 0.001)
    conv = conv_trial.Conv((8, 3, 3, 3), Windows(pads=(1, 1, 1, 1), group=2), 9, 7)

    both = [lower_ternary_int8._ours(1, 0), lower_ternary_int8._dense(1, 0)]

    for rows in both:
        assert [size for size, _ in rows] == [32 * 32, 64 * 64]
    for made in (lower_ternary_int8._our_conv, lower_ternary_int8._dense_conv):
        assert conv_trial.Trial(conv, made, "uint8")(1)[0][1][1] > 0


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_only_minus_one_zero_and_one_are_ternary(offset):
    stored = Stored(
        "integers", (4, 4), {"codes": Ints(np.arange(16, dtype=np.uint8) % 3, 2)}, options={"offset": offset}
    )

    found = ternary_int8.of(stored)

    assert (found is not None) == (offset == 1)


def test_a_file_without_ternary_integers_is_left_alone(packed):
    with artifact.Reader(packed) as reader:
        assert sum(ternary_int8.fits(reader.outline(name).node) for name in reader.names) == 3
