"""Codes are chosen on the grid that a trained step really spans: of its absolute value, down to its own lowest code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gossamer import formats
from gossamer.formats import Sparse
from gossamer.methods import LSQ
from gossamer.methods.weight_grid import WeightGrid, write_


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_grid_of_a_step_that_training_turned_negative_is_the_grid_of_the_weight(
    narrow: bool, sparse: bool
) -> None:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 24).reshape(4, 6))
        layer.weight[1, :3] = 0
    inner = LSQ(bits=3, narrow=narrow)
    formats.attach(layer, "weight", Sparse(values=inner) if sparse else inner)
    with torch.no_grad():
        formats.parts_of(layer, "weight")[-1].mul_(-0.3)  # smaller, so that both ends clip

    grid = WeightGrid.of(layer, "weight")
    codes = grid.nearest(grid.latent)

    assert (grid.scale > 0).all()
    assert codes.min() == (-3 if narrow else -4)
    assert codes.max() == 3
    torch.testing.assert_close(codes * grid.scale, layer.weight.detach())


def test_codes_that_are_written_to_a_trained_step_are_what_the_weight_decodes_to() -> None:
    layer = nn.Linear(6, 4)
    formats.attach(layer, "weight", LSQ(bits=3))
    with torch.no_grad():
        formats.parts_of(layer, "weight")[-1].neg_()
    codes = torch.randint(-4, 4, (4, 6), generator=torch.Generator().manual_seed(0))
    scale = WeightGrid.of(layer, "weight").scale

    write_(layer, "weight", codes)

    torch.testing.assert_close(layer.weight.detach(), codes * scale)
