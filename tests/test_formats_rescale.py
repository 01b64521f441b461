"""Rows of a weight are multiplied in its own format: nothing is rounded anew, zeros stay, positions stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer import formats
from gossamer.errors import FormatError
from gossamer.formats import Binary, Codebook, MultiBinary, ScaledBinary, Sparse, Ternary, Uniform
from gossamer.methods import BNN, LSQ, QIL, TTQ, TWN, DoReFa
from gossamer.steps import Context, FreezeNorms

FORMATS = {
    "none": None,
    "sparse": Sparse(),
    "uniform": Uniform(bits=8),
    "uniform per channel": Uniform(bits=4, granularity="channel"),
    "sparse grid": Sparse(values=Uniform(bits=8)),
    "lsq": LSQ(bits=3),
    "qil": QIL(bits=3, rescale=True),
    "dorefa": DoReFa(bits=2, rescale=True),
    "binary": Binary(),
    "bnn": BNN(),
    "binary per tensor": Binary(scale="tensor"),
    "scaled binary": ScaledBinary(),
    "ternary": TWN(),
    "ternary per channel": Ternary(granularity="channel"),
    "sparse ternary": Sparse(values=Ternary()),
    "sparse binary": Sparse(values=Binary()),
}


def layer(format):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3))
    module[0].weight.data[:, 1] = 0
    if format is not None:
        formats.attach(module[0], "weight", format)
    return module


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_multiplied_exactly(name):
    module = layer(FORMATS[name])
    before = module[0].weight.detach().clone()
    factors = torch.tensor([2.0, -0.5, 0.25, -4.0, 1.0, 8.0])  # powers of two: float32 rounds nothing

    assert formats.can_rescale(module, "0.weight")
    formats.rescale(module, "0.weight", factors)

    assert torch.equal(module[0].weight, before * factors.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("name", ["uniform", "lsq", "qil", "dorefa", "sparse grid"])
def test_codes_of_a_grid_stay_codes(name):
    module = layer(FORMATS[name])
    steps = module[0].weight.detach().unique().diff()
    factors = torch.rand(6, generator=torch.Generator().manual_seed(1)) + 0.5

    formats.rescale(module, "0.weight", factors)

    format = formats.attached(module)["0.weight"].format
    assert isinstance(format, Uniform)
    assert format.granularity == "channel"
    smallest = steps.min() / 2  # DoReFa has odd codes only
    codes = module[0].weight.detach() / (smallest * factors.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(codes, codes.round(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["binary", "bnn", "binary per tensor", "scaled binary"])
def test_signs_stay_signs(name):
    module = layer(FORMATS[name])
    signs = module[0].weight.detach().sign()
    factors = torch.tensor([2.0, -0.3, 0.0, -4.0, 1.0, 8.0])

    formats.rescale(module, "0.weight", factors)

    [stored] = formats.stored(module).values()
    assert stored.layout == "binary"
    assert stored.fields["signs"].width == 1
    assert torch.equal(module[0].weight.sign(), signs * factors.sign().reshape(-1, 1, 1, 1))


def test_a_row_of_zeros_keeps_its_zeros():
    module = nn.Sequential(nn.Linear(5, 3))
    module[0].weight.data[1] = 0
    formats.attach(module[0], "weight", Ternary(granularity="channel"))

    formats.rescale(module, "0.weight", torch.tensor([2.0, 3.0, -1.0]))

    assert (module[0].weight[1] == 0).all()


@pytest.mark.parametrize(
    "format", [Codebook(bits=3), MultiBinary(bases=2), TTQ()], ids=lambda f: type(f).__name__
)
def test_values_that_rows_share_cannot_be_rescaled(format):
    module = layer(format)

    assert not formats.can_rescale(module, "0.weight")
    with pytest.raises(FormatError, match="Fold norms"):
        formats.rescale(module, "0.weight", torch.ones(6))


@pytest.mark.parametrize("name", FORMATS)
def test_a_norm_folds_into_a_formatted_convolution(name):
    module = layer(FORMATS[name])
    norm = nn.BatchNorm2d(6)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.uniform_(norm.bias, -1, 1)
    module.append(norm).eval()
    x = torch.randn(2, 3, 8, 8)
    before = module(x)

    gs.apply(module, FreezeNorms(), example=x)

    assert isinstance(module[1], nn.Identity)
    torch.testing.assert_close(module(x), before, atol=2e-5, rtol=1e-5)


def test_what_cannot_fold_becomes_an_affine_block():
    module = layer(Codebook(bits=3))
    module.append(nn.BatchNorm2d(6)).eval()
    context = Context(example=torch.randn(1, 3, 8, 8))

    FreezeNorms().apply(module, context)

    assert type(module[1]).__name__ == "Affine"
