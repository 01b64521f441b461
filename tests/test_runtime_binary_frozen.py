"""Networks of signs whose norms were frozen run on bits as before: folded into the layers, or as scales and shifts."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, runtime
from gossamer.data import load_data
from gossamer.runtime import graph, lower, shapes
from gossamer.steps import Binarize, Context, FreezeNorms

SIGNED, POOL = "BinaryConvSign", "BinaryMaxPool"
EXAMPLE = torch.zeros(2, 1, 28, 28)


class Net(nn.Sequential):
    """Norms behind convolutions, behind poolings, behind a slope for each channel, and behind linear layers."""

    def __init__(self):
        norm1, norm2 = nn.BatchNorm1d, nn.BatchNorm2d
        super().__init__(
            *(nn.Conv2d(1, 12, 3, 2, 1, bias=False), norm2(12), nn.ReLU()),
            *(nn.Conv2d(12, 24, 3, padding=1, bias=False), norm2(24), nn.ReLU()),
            *(nn.Conv2d(24, 24, 3, padding=1, groups=2, bias=False), nn.MaxPool2d(2), norm2(24), nn.ReLU()),
            *(nn.Conv2d(24, 16, 3), nn.PReLU(16), norm2(16), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(16 * 25, 32, bias=False), norm1(32), nn.ReLU()),
            *(nn.Linear(32, 32), norm1(32), nn.ReLU(), nn.Linear(32, 10)),
        )


@pytest.fixture(scope="module", params=["BNN", "XNOR", "BinaryConnect"])
def trained(request):
    """(a network of signs after one batch, with norms of either sign, pictures)"""
    full = load_data("digits")
    data = dataclasses.replace(full, train=full.train.subset(range(128)))
    step = Binarize(teacher=None, weights=request.param, activations="sign")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = step.apply(Net(), Context(data=data, example=EXAMPLE, trial=True)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
            if isinstance(module, nn.PReLU):
                nn.init.uniform_(module.weight)
    return model, torch.from_numpy(full.preprocess(full.test.take(slice(0, 64))[0]))


def operators(path):
    with artifact.Reader(path) as reader:
        _, body = graph.split(lower.plan(reader, kernels="binary").model)
        return [node.op for node in graph.nodes(body)]


@pytest.mark.parametrize("norms", ["kept", "folded", "affine"])
def test_frozen_norms_leave_layers_on_bits(trained, tmp_path, norms):
    model, x = trained
    with torch.no_grad():
        wanted = model(x).numpy()
    model = copy.deepcopy(model)
    if norms != "kept":
        FreezeNorms(fold=norms == "folded").apply(model, Context(example=EXAMPLE))
    gs.pack(model, tmp_path / "m.goss", EXAMPLE)

    found = operators(tmp_path / "m.goss")

    assert [op for op in found if op.startswith("Binary")] == [
        *(SIGNED, SIGNED, POOL, SIGNED, SIGNED, "BinaryConv")
    ]
    assert not {"Where", "MaxPool"} & set(found)
    for kernels in ("binary", "dense"):
        got = runtime.open(tmp_path / "m.goss", kernels=kernels, threads=1)(x.numpy())
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "target", "wanted"),
    [
        ((6,), [-1, 1, 1], (6, 1, 1)),
        ((2, 6), [0, 3, -1], (2, 3, 2)),
        ((None, 6), [0, -1], (None, None)),
        ((None, 6), [4, -1], (4, None)),
        ((), [1, 1], (1, 1)),
        ((0, 3), [0, -1], (0, None)),
        ((6,), [-1, -1], None),
        ((6,), [-2, 3], None),
        ((6,), [6, 0], None),
        ((6,), [[6]], None),
    ],
)
def test_a_reshape_is_followed(given, target, wanted):
    assert shapes.reshaped(given, np.array(target, np.int64)) == wanted
