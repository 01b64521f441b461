"""Affine: a grid fixed by calibration, optionally one that follows the activations while the network trains.

    observe   an observer sees the values
    settle    (low, high) = observer.range(...);  grid = Grid.of_range(low, high)
    quantize  x_hat = grid.fake(x); the gradient passes where low <= x <= high of the grid and is 0 outside

With `momentum` m, every training batch moves the range and with it the grid, before it is used:
low += m (min x - low), high += m (max x - high); in eval mode the grid stays. m = 0.01 is a decay of 0.99. The range also
follows while values still pass ("off"), so that rounding may start late in a training run.
The grid, as float32 scale and integer zero point, and the range are buffers.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877, sections 2.1 and 3.1.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import OptionError
from .grid import Grid
from .histogram import finite_range
from .kept import Kept
from .observers import Observer, find


class Affine(Kept):
    """The integer grid over an observed range; `observer` is a name of `observers` or an Observer.

    momentum: weight of a training batch in the range, 0 < momentum <= 1; None: the range stays.
    """

    scale: Tensor
    zero_point: Tensor
    ends: Tensor

    def __init__(
        self,
        *,
        bits: int = 8,
        signed: bool = False,
        symmetric: bool = False,
        observer: str | Observer = "minmax",
        momentum: float | None = None,
    ) -> None:
        super().__init__(bits=bits, signed=signed)
        if momentum is not None and not 0 < momentum <= 1:
            raise OptionError(f"Affine: momentum is {momentum}, expected 0 < momentum <= 1, or None.")
        self.symmetric = symmetric
        self.momentum = momentum
        self.observer = find(observer) if isinstance(observer, str) else observer
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))
        self.register_buffer("ends", torch.zeros(2))

    def observe(self, x: Tensor) -> None:
        self.observer.observe(x)

    def settle(self) -> None:
        self._set(*self.observer.range(bits=self.bits, signed=self.signed, symmetric=self.symmetric))
        self.observer = dataclasses.replace(self.observer)  # the same options, and nothing observed
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        if self.state == "off":
            self._follow(x)
        return super().forward(x)

    def quantize(self, x: Tensor) -> Tensor:
        self._follow(x)
        return (self._known or self.grid()).fake(x)

    def _follow(self, x: Tensor) -> None:
        """Move the range by a training batch."""
        if self.momentum is None or not self.training or not x.numel():
            return
        low, high = self.ends.tolist()
        batch = finite_range(x)
        self._set(low + self.momentum * (batch[0] - low), high + self.momentum * (batch[1] - high))

    def present_grid(self) -> Grid:
        limits = self._of_range(0.0, 1.0)
        return Grid(float(self.scale), int(self.zero_point), limits.qmin, limits.qmax)

    def _of_range(self, low: float, high: float) -> Grid:
        return Grid.of_range(low, high, bits=self.bits, signed=self.signed, symmetric=self.symmetric)

    def _set(self, low: float, high: float) -> None:
        grid = self._of_range(low, high)
        self.ends.copy_(torch.tensor([low, high]))
        self.scale.fill_(grid.scale)
        self.zero_point.fill_(grid.zero_point)
        self._known = self.present_grid()
