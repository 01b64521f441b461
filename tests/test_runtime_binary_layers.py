"""Layers of signs on bits: whole networks against their dense form, thresholds against the function they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from gossamer import artifact, blocks, formats, runtime
from gossamer.methods import BNN, XNOR
from gossamer.runtime import breakeven, epilogue, graph, lower, lower_binary


def norm(kind, channels):
    """A norm of random statistics, half of its channels turned over, some constant."""
    made = kind(channels)
    with torch.no_grad():
        made.running_mean.normal_(0, 3)
        made.running_var.uniform_(0.5, 2)
        made.weight.normal_()
        made.weight[::7] = 0
        made.bias.normal_()
    return made


def conv(inner, outer, kernel=3, **options):
    return nn.Conv2d(inner, outer, kernel, bias=False, **options)


class Chain(nn.Sequential):
    """Every order of norm, pooling and sign, a stride, a dilation, and rows after Flatten."""

    def __init__(self):
        norm2, norm1 = nn.BatchNorm2d, nn.BatchNorm1d
        super().__init__(
            *(conv(2, 70, padding=1), norm(norm2, 70), blocks.Sign()),
            *(conv(70, 33, padding=1), norm(norm2, 33), blocks.Sign(), nn.MaxPool2d(2)),
            *(
                conv(33, 130, padding=(2, 1), stride=(1, 2)),
                nn.MaxPool2d(3, 2, 1),
                norm(norm2, 130),
                blocks.Sign(),
            ),
            *(conv(130, 20, 2, dilation=2), nn.Hardtanh(-30, 9), norm(norm2, 20), blocks.Sign()),
            nn.Flatten(),
            *(nn.Linear(20 * 5, 40, bias=False), norm(norm1, 40), blocks.Sign()),
            *(nn.Linear(40, 40), nn.LeakyReLU(0.3), norm(norm1, 40), blocks.Sign()),
            *(nn.Linear(40, 5, bias=False), norm(norm1, 5)),
        )


class Residual(nn.Module):
    """Floats beside the signs, a sign that two layers and a pooling read, and one that leaves the network."""

    def __init__(self):
        super().__init__()
        self.sign = blocks.Sign()
        self.first, self.left, self.right = conv(3, 64, padding=1), conv(64, 64, padding=1), conv(64, 64, 1)
        self.last, self.grouped = conv(64, 16, 3), conv(64, 8, groups=2)
        self.norms = nn.ModuleList(norm(nn.BatchNorm2d, 64) for _ in range(3))

    def forward(self, x):
        x = self.norms[0](self.first(x))
        signs = self.sign(x)
        x = x + self.norms[1](self.left(signs)) + self.norms[2](self.right(signs))
        pooled = F.max_pool2d(self.sign(x), 2)
        return self.last(pooled), pooled, F.max_pool2d(signs, 2), self.grouped(signs)


def binarized(model, *, first="0"):
    """The model with binary weights, all but the first, scaled and not in turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear) and name != first:
            formats.refine(model, f"{name}.weight", XNOR() if len(name) % 2 else BNN())
    return model.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("binary")
    models = {
        "chain": (binarized(Chain), torch.zeros(2, 2, 22, 18)),
        "residual": (binarized(Residual, first="first"), torch.zeros(2, 3, 8, 8)),
    }
    for name, (model, example) in models.items():
        gs.pack(model, folder / name, example)
    return {name: (folder / name).read_bytes() for name in models}


def run(data, x, kernels, threads=2):
    found = runtime.open(data, kernels=kernels, threads=threads)(x)
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", ["chain", "residual"])
def test_a_network_on_bits_gives_what_its_dense_form_gives(files, variant, name):
    shape = (37, 3, 8, 8) if name == "residual" else (37, 2, 22, 18)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    for got, wanted in zip(run(files[name], x, "binary"), run(files[name], x, "dense"), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


def operators(data):
    """The operators of the lowered graph, in order."""
    with artifact.Reader(data) as reader:
        _, body = graph.split(lower.plan(reader, kernels="binary").model)
        return [node.op for node in graph.nodes(body)]


def test_bits_pass_between_layers_and_no_floats(files):
    pooled = ["BinaryConvSign", "BinaryMaxPool"]

    assert operators(files["chain"]) == ["Conv", *pooled, *pooled, *["BinaryConvSign"] * 3, "BinaryConv"]


def test_floats_exist_where_something_else_reads_them(files):
    found = operators(files["residual"])

    assert found.count("BinarySign") == 2
    assert found.count("BinaryConv") == 4
    assert "Mul" not in found  # norms are folded
    assert "BinaryFloats" not in found  # what pooling reads was there before


def test_explain_names_the_operators(files):
    rows = runtime.open(files["chain"], kernels="binary").explain()
    assert [row.kernel for row in rows] == ["onnxruntime dense", *["BinaryConvSign"] * 5, "BinaryConv"]
    assert {row.why for row in rows[1:]} == {"asked for"}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_threads_change_nothing(files, threads, batch):
    x = np.random.default_rng(1).standard_normal((batch, 2, 22, 18)).astype(np.float32)

    (one,), (several,) = (run(files["chain"], x, "binary", count) for count in (1, threads))

    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pooled", [False, True])
def test_thresholds_give_every_sign_of_the_function(seed, pooled):
    rng = np.random.default_rng(seed)
    products, outputs = 27, 200
    factor, shift = rng.standard_normal((2, outputs)).astype(np.float32)
    factor[:20], shift[10:30] = 0, 0
    shift[100:] = -factor[100:] * rng.integers(-27, 28, 100)  # ties
    steps = (epilogue._arithmetic("Mul", factor), epilogue._arithmetic("Add", shift))
    follows = epilogue.Epilogue(steps, (), "s", 0 if pooled else None, 0)

    thresholds, falls, flips = follows.thresholds(lambda v: v.astype(np.float32), products, outputs)

    v = np.arange(-products, products + 1)[:, None]
    wanted = factor * v.astype(np.float32) + shift >= 0
    got = (np.where(falls, -v, v) >= thresholds) ^ flips
    np.testing.assert_array_equal(got, wanted)
    assert flips.any() == pooled
    assert falls.any() != pooled


def test_small_layers_are_not_measured(files, monkeypatch):
    monkeypatch.setattr(breakeven, "curve", lambda *_, **__: pytest.fail("it was measured"))
    monkeypatch.setattr(lower_binary, "LEAST_WEIGHTS", 2**17)

    rows = runtime.open(files["chain"]).explain()

    assert {row.kernel for row in rows} == {"onnxruntime dense"}


@pytest.mark.parametrize(
    ("slow", "kernel"), [(("binary", "ternary"), "onnxruntime dense"), (("conv",), "BinaryConvSign")]
)
def test_a_layer_runs_on_bits_where_that_is_expected_to_be_faster(files, monkeypatch, slow, kernel):
    monkeypatch.setattr(lower_binary, "LEAST_WEIGHTS", 2**14)
    flat = {
        name: breakeven.Curve(((1, {1: ms}), (2, {1: 2 * ms}))) for name, ms in (("low", 1.0), ("high", 9.0))
    }
    monkeypatch.setattr(
        breakeven, "curve", lambda name, *_, **__: flat["high" if name.startswith(slow) else "low"]
    )

    rows = {row.weight: row for row in runtime.open(files["chain"]).explain()}

    large = [row for row in rows.values() if np.prod(row.shape) >= 2**14 and row.op == "Conv"]
    assert [row.kernel for row in large] == [kernel] * 2
    assert all(row.ms and row.other_ms and row.ms < row.other_ms for row in large)
