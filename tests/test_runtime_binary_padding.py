"""A Pad before a convolution of signs becomes the operator's own padding, with +1 or 0; any other Pad stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, blocks, formats, runtime
from gossamer.methods import BNN
from gossamer.runtime import graph, lower, padding


def conv(inner, outer, kernel=3, **options):
    return nn.Conv2d(inner, outer, kernel, bias=False, **options)


def norm(channels):
    made = nn.BatchNorm2d(channels)
    with torch.no_grad():
        made.running_mean.normal_()
        made.weight.normal_()
        made.bias.normal_()
    return made


class Padded(nn.Sequential):
    """+1 on all sides and on some, before and after pooling, with a stride, a dilation and groups; zeros too."""

    def __init__(self):
        super().__init__(
            *(conv(2, 33, padding=1), norm(33), blocks.Sign()),
            *(nn.ConstantPad2d(1, 1.0), conv(33, 66), norm(66), blocks.Sign()),
            *(
                nn.MaxPool2d(2),
                nn.ConstantPad2d((2, 0, 1, 3), 1.0),
                conv(66, 40, stride=2),
                norm(40),
                blocks.Sign(),
            ),
            *(nn.ZeroPad2d((1, 2, 0, 1)), conv(40, 40, groups=4), norm(40), blocks.Sign()),
            *(nn.ConstantPad2d(2, 1.0), conv(40, 24, dilation=2), norm(24), blocks.Sign()),
            *(nn.Flatten(), nn.Linear(24 * 3 * 4, 10, bias=False)),
        )


class Shared(nn.Module):
    """One sign that is padded twice, read as it is and given away, and a padded image that two layers read."""

    def __init__(self):
        super().__init__()
        self.sign, self.pad = blocks.Sign(), nn.ConstantPad2d(1, 1.0)
        self.stem, self.norm = conv(2, 16, 1), norm(16)
        self.one, self.two, self.three, self.four = conv(16, 9), conv(16, 9), conv(16, 9, 1), conv(16, 9)

    def forward(self, x):
        x = self.sign(self.norm(self.stem(x)))
        padded = self.pad(x)
        return self.one(padded), self.two(padded), self.three(x), self.four(F.pad(x, (1, 1))), x


def of(made, path, example):
    """(the model with binary weights behind the first layer, its file)"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = made().eval()
    layers = [n for n, m in made.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for name in layers[1:]:
        formats.refine(made, f"{name}.weight", BNN())
    gs.pack(made, path, example)
    return made, path.read_bytes()


def lowered(data):
    """The nodes of the graph that runs: (operator, {attribute: list})."""
    with artifact.Reader(data) as reader:
        model = onnx.load_from_string(lower.plan(reader, kernels="binary").model)
    return [(n.op_type, {a.name: tuple(a.ints) for a in n.attribute}) for n in model.graph.node]


def same(made, data, x, threads=2):
    with torch.no_grad():
        wanted = made(x)
    for kernels in ("binary", "dense"):
        got = runtime.open(data, kernels=kernels, threads=threads)(x.numpy())
        pairs = zip(got.values(), wanted, strict=True) if isinstance(got, dict) else [(got, wanted)]
        for one, other in pairs:
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_padding_becomes_that_of_the_operator(tmp_path, threads):
    made, data = of(Padded, tmp_path / "m.goss", torch.zeros(2, 2, 13, 11))

    found = lowered(data)

    same(made, data, torch.randn(9, 2, 13, 11), threads)
    signed, pool = "BinaryConvSign", "BinaryMaxPool"
    assert [op for op, _ in found] == ["Conv", signed, pool, signed, signed, signed, "BinaryConv"]
    values = [(lists["pads"], lists["pad_value"]) for op, lists in found if op.startswith("BinaryConv")]
    assert values == [
        ((1, 1, 1, 1), (1,)),
        ((1, 2, 3, 0), (1,)),
        ((0, 1, 1, 2), (0,)),
        ((2, 2, 2, 2), (1,)),
        ((0, 0, 0, 0), (0,)),
    ]


def test_a_sign_may_be_padded_in_several_ways(tmp_path):
    made, data = of(Shared, tmp_path / "m.goss", torch.zeros(2, 2, 7, 6))

    found = [op for op, _ in lowered(data)]

    same(made, data, torch.randn(5, 2, 7, 6))
    assert found.count("BinaryConv") == 4
    assert found.count("BinarySign") == 1
    assert "Pad" not in found


@pytest.mark.parametrize(
    "pad",
    [
        nn.ConstantPad2d(1, 0.5),
        nn.ConstantPad2d(1, -1.0),
        nn.ConstantPad2d((-1, 1, 1, 1), 1.0),
        nn.ReflectionPad2d(1),
        nn.ConstantPad3d((1, 1, 1, 1, 0, 2), 1.0),
        nn.Sequential(nn.ConstantPad2d(1, 1.0), conv(4, 4, padding=1)),
    ],
    ids=["half", "minus one", "crop", "reflect", "channels", "around and zeros"],
)
def test_other_padding_stays(tmp_path, pad):
    def made():
        layers = [*pad] if isinstance(pad, nn.Sequential) else [pad, conv(4, 4)]
        if isinstance(pad, nn.ConstantPad3d):
            layers = [pad, conv(6, 4)]
        return nn.Sequential(conv(2, 4), norm(4), blocks.Sign(), *layers)

    model, data = of(made, tmp_path / "m.goss", torch.zeros(2, 2, 9, 8))

    same(model, data, torch.randn(3, 2, 9, 8))
    assert [op for op, _ in lowered(data)][-2:] == ["Pad", "Conv"]


def test_zeros_of_a_pad_and_of_the_layer_add_up(tmp_path):
    def made():
        return nn.Sequential(conv(2, 4), norm(4), blocks.Sign(), nn.ZeroPad2d(1), conv(4, 4, padding=(0, 2)))

    model, data = of(made, tmp_path / "m.goss", torch.zeros(2, 2, 9, 8))

    same(model, data, torch.randn(3, 2, 9, 8))
    assert lowered(data)[-1][1]["pads"] == (1, 3, 1, 3)


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (["x", "two", "one", "last"], ((0, 0, 5, 6), (0, 0, 7, 8), 1.0)),
        (["x", "two", "", "last"], ((0, 0, 5, 6), (0, 0, 7, 8), 0.0)),
        (["x", "eight"], ((0, 1, 2, 3), (4, 5, 6, 7), 0.0)),
        (["x", "eight", "unknown"], ((0, 1, 2, 3), (4, 5, 6, 7), None)),
        (["x", "unknown"], None),
        (["x", "two", "one", "unknown"], None),
        (["x", "two", "one", "beyond"], None),
        (["x", "two"], None),
    ],
)
def test_a_pad_is_read_by_its_axes(inputs, wanted):
    known = {
        "two": np.array([5, 6, 7, 8]),
        "eight": np.arange(8),
        "one": np.ones((), np.float32),
        "last": np.array([2, -1]),
        "beyond": np.array([2, 4]),
    }

    found = padding.of(graph.Node("Pad", tuple(inputs), ("y",)), graph.Attributes(), 4, known.get)

    assert (found and (found.before, found.after, found.value)) == wanted
