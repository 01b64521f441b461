"""Convolutions of signs in groups: the operators against torch, bits between them, whole networks, and the choice."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from gossamer import artifact, blocks, formats, runtime
from gossamer.methods import BNN, XNOR
from gossamer.runtime import Port, binary, breakeven, build, graph, lower, lower_binary
from operator_session import session

SPLITS = [(1, 5, 7), (2, 3, 20), (3, 64, 16), (3, 70, 9), (2, 130, 24), (12, 3, 3), (70, 1, 1), (9, 1, 2)]


def drawn(*shape, seed=0):
    """Floats of both signs and zeros."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape).astype(np.float32)
    return values * (rng.random(shape) > 0.1)


def signs(values):
    return torch.where(torch.as_tensor(values) >= 0, 1.0, -1.0)


def sums(x, weight, group, *, stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), pad_value=0):
    """Torch's convolution of signs, as an array."""
    top, left, bottom, right = pads
    padded = F.pad(signs(x), (left, right, top, bottom), value=float(pad_value))
    return F.conv2d(padded, signs(weight), stride=stride, dilation=dilation, groups=group).numpy()


@pytest.mark.parametrize(("group", "inner", "outer"), SPLITS)
@pytest.mark.parametrize("pad_value", [0, 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_equal_torch_on_signs(variant, group, inner, outer, pad_value, threads):
    x, weight = drawn(2, group * inner, 9, 11), drawn(group * outer, inner, 3, 2, seed=1)
    scale, offset = np.random.default_rng(2).integers(-8, 9, (2, len(weight))).astype(np.float32) / 4
    options = {"stride": (2, 1), "dilation": (1, 3), "pads": (2, 0, 1, 3), "pad_value": pad_value}

    got = session(binary.model(weight, scale, offset, group=group, **options), threads).run(None, {"x": x})[0]

    wanted = sums(x, weight, group, **options) * scale[:, None, None] + offset[:, None, None]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("group", "inner", "outer"), SPLITS)
@pytest.mark.parametrize("threads", [1, 2])
def test_bits_pass_into_and_out_of_groups(variant, group, inner, outer, threads):
    x = drawn(3, group * inner, 17, 16)  # 272 pixels: several tasks
    first, second = drawn(group * outer, inner, 3, 3, seed=1), drawn(5 * group, outer, 1, 1, seed=2)
    least = [np.random.default_rng(seed).integers(-3, 4, len(w)) for seed, w in ((3, first), (4, second))]
    fields = {
        "f1": binary.packed(first),
        "t1": least[0].astype(np.int32),
        "f2": binary.packed(second),
        "t2": least[1].astype(np.int32),
    }
    one = binary.Geometry(group * inner, (3, 3), pads=(1, 1, 1, 1), group=group)
    two = binary.Geometry(group * outer, group=group)
    nodes = [
        build.node("BinarySign", ["x"], ["bits"], domain=build.DOMAIN, lists={"product": (0,)}),
        binary.node("BinaryConvSign", ["bits", "f1", "t1"], "inside", one),
        binary.node("BinaryConvSign", ["inside", "f2", "t2"], "outside", two),
        floats("outside", 5 * group),
    ]

    got = session(model(nodes, x.shape, (3, 5 * group, 17, 16), fields), threads).run(None, {"x": x})[0]

    inside = sums(x, first, group, pads=one.pads) - least[0][:, None, None]
    wanted = signs(sums(inside, second, group) - least[1][:, None, None])
    np.testing.assert_array_equal(got, wanted.numpy())


def floats(name, channels):
    lists = {"channels": (channels,), "product": (0,)}
    return build.node("BinaryFloats", [name], ["y"], domain=build.DOMAIN, lists=lists)


def model(nodes, x, y, fields):
    return build.model(nodes, [Port("x", x, "float32")], [Port("y", y, "float32")], fields)


@pytest.mark.parametrize(
    ("channels", "group", "said"),
    [
        (10, 3, "10 channels and 6 outputs cannot be cut into 3 groups"),
        (8, 4, "8 channels and 6 outputs cannot be cut into 4 groups"),
        (8, 0, "'group' is 0, expected 1 to 2.20"),
        (8, 2**40, "'group' is 1099511627776"),
    ],
)
@pytest.mark.parametrize("op", ["BinaryConv", "BinaryConvSign"])
def test_groups_that_no_convolution_has_are_refused(channels, group, said, op):
    fields = {"f": np.zeros((6, 1, 1, 1), np.uint8)}
    if op == "BinaryConv":
        fields |= {"scale": np.ones(6, np.float32), "offset": np.ones(6, np.float32)}
    else:
        fields |= {"thresholds": np.ones(6, np.int32)}
    made = binary.node(op, ["x", *fields], "bits", binary.Geometry(channels, group=group), name="conv")
    nodes = [made] if op == "BinaryConv" else [made, floats("bits", 6)]
    port = Port("bits" if op == "BinaryConv" else "y", ("n", 6, "a", "b"), "float32")
    graph_ = build.model(nodes, [Port("x", ("n", channels, "h", "w"), "float32")], [port], fields)

    with pytest.raises(Exception, match=f"{op} node 'conv': {said}"):
        session(graph_)


@pytest.mark.parametrize("lists", [{"product": (1,)}, {"flatten": (1,)}])
def test_products_have_one_group(lists):
    fields = {"f": np.zeros((6, 1, 1, 1), np.uint8), "t": np.ones(6, np.int32)}
    given = binary.Geometry(8, group=2).lists() | lists
    nodes = [
        build.node("BinaryConvSign", ["x", "f", "t"], ["bits"], domain=build.DOMAIN, lists=given),
        build.node(
            "BinaryFloats", ["bits"], ["y"], domain=build.DOMAIN, lists={"channels": (6,), "product": (1,)}
        ),
    ]

    with pytest.raises(Exception, match="without padding, strides or groups"):
        session(model(nodes, ("n", 8), ("n", 6), fields))


class Grouped(nn.Sequential):
    """Groups of 1, 3, 7 and 35 channels, with norms, pooling before and after the sign, strides, and rows at the end."""

    def __init__(self):
        super().__init__(
            *(nn.Conv2d(2, 21, 3, padding=1), nn.BatchNorm2d(21), blocks.Sign()),
            *(conv(21, 70, 7), nn.BatchNorm2d(70), blocks.Sign()),
            *(conv(70, 70, 2, stride=2), nn.MaxPool2d(2), nn.BatchNorm2d(70), blocks.Sign()),
            *(conv(70, 140, 70), nn.BatchNorm2d(140), nn.PReLU(140), blocks.Sign(), nn.MaxPool2d(2)),
            *(conv(140, 40, 20), nn.BatchNorm2d(40), nn.Hardtanh(), blocks.Sign()),
            *(nn.Flatten(), nn.Linear(40 * 2 * 3, 10, bias=False), nn.BatchNorm1d(10)),
        )


def conv(inner, outer, group, **options):
    return nn.Conv2d(inner, outer, 3, padding=1, groups=group, bias=False, **options)


def binarized(made):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = made()
        for norm in made.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
                norm.running_mean.normal_()
    layers = [n for n, m in made.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for name in layers[1:]:
        formats.refine(made, f"{name}.weight", XNOR() if len(name) % 2 else BNN())
    return made.eval()


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """(model, its file)"""
    model_, path = binarized(Grouped), tmp_path_factory.mktemp("groups") / "grouped.goss"
    gs.pack(model_, path, torch.zeros(2, 2, 16, 24))
    return model_, path.read_bytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_of_groups_gives_what_torch_gives(grouped, variant, threads):
    model_, data = grouped
    x = torch.randn(33, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model_(x).numpy()

    for kernels in ("binary", "dense"):
        got = runtime.open(data, kernels=kernels, threads=threads)(x.numpy())
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)
        assert (got.argmax(1) == wanted.argmax(1)).all()


def test_bits_pass_between_groups_and_no_floats(grouped):
    with artifact.Reader(grouped[1]) as reader:
        _, body = graph.split(lower.plan(reader, kernels="binary").model)
        found = [node.op for node in graph.nodes(body)]

    signed, pool = "BinaryConvSign", "BinaryMaxPool"
    assert found == ["Conv", signed, signed, pool, signed, pool, signed, "BinaryConv"]


@pytest.mark.parametrize("slow", ["binary", "conv"])
def test_groups_run_where_a_trial_of_their_shape_is_faster(grouped, monkeypatch, slow):
    monkeypatch.setattr(lower_binary, "LEAST_WEIGHTS", 1)
    tried = []

    def curve(name, threads, measure, **_):
        tried.append(name)
        return SimpleNamespace(ms=lambda *_: 9.0 if name.startswith(slow) else 1.0)

    monkeypatch.setattr(breakeven, "curve", curve)

    rows = runtime.open(grouped[1]).explain()

    kernels = {row.kernel for row in rows if row.op == "Conv" and row.layout == "binary"}
    assert kernels == ({"onnxruntime dense"} if slow == "binary" else {"BinaryConvSign"})
    assert "binary-70x35x3x3-2x2-1x1-1x1x1x1-2-16x24" in tried
    assert "conv-140x1x3x3-1x1-1x1-1x1x1x1-70-4x6" in tried


def test_a_convolution_of_single_channels_stays_dense(monkeypatch, tmp_path):
    """Measured: one of the 64 bits of each word is used, and dense does it many times as fast."""
    monkeypatch.setattr(lower_binary, "LEAST_WEIGHTS", 1)
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path))
    monkeypatch.setattr(breakeven, "SECONDS", 0.01)
    made = binarized(
        lambda: nn.Sequential(nn.Conv2d(1, 64, 1), nn.BatchNorm2d(64), blocks.Sign(), conv(64, 64, 64))
    )
    gs.pack(made, tmp_path / "m.goss", torch.zeros(2, 1, 28, 28))

    rows = runtime.open(tmp_path / "m.goss", threads=1).explain()

    [row] = [row for row in rows if row.layout == "binary"]
    assert row.kernel == "onnxruntime dense"
    assert row.ms < row.other_ms
