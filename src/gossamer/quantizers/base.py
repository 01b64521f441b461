"""Quantizer: a module that rounds an activation to a grid of integers.

A quantizer has three states: "observe" (values pass, their range is learnt), "quantize" (values are rounded, with a
gradient), "off" (values pass). When the network is traced, a quantizing one becomes one operator,
gossamer::fake_quantize, which the exporter writes as QuantizeLinear and DequantizeLinear.

Subclasses say how the grid comes about: `Affine` from a calibrated range, the learned ones by training.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..formats.base import Learning
from .grid import Grid

STATES = ("observe", "quantize", "off")


class Quantizer(nn.Module):
    """Base of every activation quantizer; `bits` 2 to 8, `signed` integers or not."""

    method: ClassVar[str] = ""  # what the field calls it: the method whose activations these are

    def __init__(self, *, bits: int = 8, signed: bool = False) -> None:
        super().__init__()
        if not 2 <= bits <= 8:
            raise OptionError(f"{type(self).__name__}: bits is {bits}, expected 2 to 8.")
        self.bits = bits
        self.signed = signed
        self.state = "off"

    def forward(self, x: Tensor) -> Tensor:
        if self.state == "off":
            return x
        if self.state == "observe":
            self.observe(x)
            return x
        if torch.compiler.is_exporting():
            grid = self.grid()
            traced: Tensor = torch.ops.gossamer.fake_quantize(
                x, grid.scale, grid.zero_point, grid.qmin, grid.qmax
            )
            return traced
        return self.quantize(x)

    def observe(self, x: Tensor) -> None:
        """Learn from values that pass."""
        raise NotImplementedError

    def settle(self) -> None:
        """Fix the grid from what was observed, and quantize from now on."""
        raise NotImplementedError

    def quantize(self, x: Tensor) -> Tensor:
        """The rounded values, differentiable."""
        raise NotImplementedError

    def learning(self) -> dict[str, Learning]:
        """Parameters that do not learn as the weights of the network do: not at their rate, or without decay."""
        return {}

    def grid(self) -> Grid:
        """The present grid, exactly as `quantize` uses it."""
        raise NotImplementedError
