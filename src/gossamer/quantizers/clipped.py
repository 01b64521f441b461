"""Clipped: the largest value of the grid is trained by the task loss (PACT).

    y = (|x| - |x - a| + a) / 2 = clip(x, 0, a)        x_hat = round(y (2^bits - 1) / a) a / (2^bits - 1)
    dx_hat/dx = 1 where 0 <= x < a, else 0             dx_hat/da = 1 where x >= a, else 0

a starts at `start`, or at the largest value observed where that is smaller: no value beyond a would ever move it.
The paper decays a by L2 as strongly as the weights, so here, unlike a step or an interval, weight decay acts on it.
Source: Choi et al., "PACT: Parameterized clipping activation for quantized neural networks", 2018, arXiv:1805.06085,
section 3.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .grid import TINY, Grid
from .kept import Kept
from .learned_step import positive
from .observers import MinMax


class Clipped(Kept):
    """PACT: unsigned, after a ReLU (or in its place); start: the first a, unless all values are smaller."""

    method: ClassVar[str] = "PACT"

    def __init__(self, *, bits: int = 8, start: float = 6.0) -> None:
        super().__init__(bits=bits)
        if not start > 0:
            raise OptionError(f"Clipped: start is {start}, expected a positive value.")
        self.start = start
        self.reach = nn.Parameter(torch.tensor(float(start)))
        self._ends = MinMax()

    def observe(self, x: Tensor) -> None:
        self._ends.observe(x)

    def settle(self) -> None:
        low, high = self._ends.range()
        self.refuse_negative(low)
        with torch.no_grad():
            self.reach.fill_(max(min(self.start, high), TINY) if high > 0 else self.start)
        self._ends = MinMax()
        self.begin()

    def quantize(self, x: Tensor) -> Tensor:
        reach = positive(self.reach)
        soft = torch.where(x >= reach, reach, x.clamp_min(0))
        step = reach.detach() / self.largest
        hard = (soft.detach() / step).round().clamp_max(self.largest) * step
        return hard + (soft - soft.detach())  # exactly `hard`, with the gradient of `soft`

    def present_grid(self) -> Grid:
        return Grid(float(positive(self.reach.detach()) / self.largest), 0, 0, self.largest)
