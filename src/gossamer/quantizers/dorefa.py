"""DoReFaActivation: k-bit values between 0 and a fixed bound, nothing learned.

    x_hat = a Q_k(clip(x / a, 0, 1)),  Q_k(u) = round((2^k - 1) u) / (2^k - 1)
    dx_hat/dx = 1 where 0 <= x <= a, else 0

The paper has a = 1 and trains from the start with it. reach=None takes the largest value observed instead, which
fits a network that is already trained.
Source: Zhou et al., "DoReFa-Net", 2016, arXiv:1606.06160, equations 5 and 11.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..errors import OptionError
from .grid import TINY, Grid
from .kept import Kept
from .observers import MinMax


class DoReFaActivation(Kept):
    """DoReFa-Net's activations; reach: a, or None to take the largest value observed."""

    method: ClassVar[str] = "DoReFa"
    bound: Tensor

    def __init__(self, *, bits: int = 8, reach: float | None = 1.0) -> None:
        super().__init__(bits=bits)
        if reach is not None and not reach > 0:
            raise OptionError(f"DoReFaActivation: reach is {reach}, expected a positive value, or None.")
        self.reach = reach
        self.register_buffer("bound", torch.tensor(1.0 if reach is None else float(reach)))
        self._ends = MinMax()

    def observe(self, x: Tensor) -> None:
        self._ends.observe(x)

    def settle(self) -> None:
        low, high = self._ends.range()
        self.refuse_negative(low)
        if self.reach is None:
            self.bound.fill_(max(high, TINY))
        self._ends = MinMax()
        self.begin()

    def quantize(self, x: Tensor) -> Tensor:
        return (self._known or self.grid()).fake(x)

    def present_grid(self) -> Grid:
        return Grid(float(self.bound / self.largest), 0, 0, self.largest)
