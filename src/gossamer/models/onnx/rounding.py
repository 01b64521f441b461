"""rounding: activations of an already quantized network, rounded to the grid that the file gives."""

from __future__ import annotations

import torch
from torch import Tensor

from ...quantizers import Grid, Quantizer
from .graph import Node
from .layers import Layer, Weights

FAKE_QUANTIZE = "fake_quantize"  # what `fuse` makes of QuantizeLinear and DequantizeLinear


class FixedGrid(Quantizer):
    """Rounds to one grid for good; the gradient passes inside of its range."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(bits=max((grid.qmax - grid.qmin).bit_length(), 2), signed=grid.qmin < 0)
        self._grid = grid
        self.state = "quantize"

    def quantize(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # what it computes is no call of the network
            return self._grid.fake(x)

    def grid(self) -> Grid:
        return self._grid

    def extra_repr(self) -> str:
        return f"scale={self._grid.scale:.6g}, zero_point={self._grid.zero_point}"


def fake_quantize(node: Node, weights: Weights) -> Layer:
    """The rounding of one value."""
    return Layer(FixedGrid(node.attributes["grid"]), node.inputs[:1], "")
