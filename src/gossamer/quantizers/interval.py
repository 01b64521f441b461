"""LearnedInterval: what lies below an interval becomes zero, what lies above its end, and both are trained (QIL).

    t = clip((x - c + d) / (2 d), 0, 1)        x_hat = u round(t q) / q,  q = 2^bits - 1
    dx_hat/dx = u / 2d,  dx_hat/dc = -u / 2d,  dx_hat/dd = -u (x - c) / 2d^2 inside the interval, 0 outside

c (center) and d (half width) start with the interval [0, largest value observed], or with fit="mse" at the [0, e] of the
least squared error, which few bits need; d is kept above |c| / 100. In the paper u = 1: the result is t itself, and what
follows must be trained to that scale. rescale=True fixes u to the first end of the interval, c + d: while c = d nothing but
rounding and clipping happens, which fits a network already trained.

Export. x_hat is not an affine grid of x, since x = 0 stands at t = (d - c) / 2d, mostly no multiple of 1 / q. It is
exactly one of the mapped value

    m = gain x + shift,  gain = u / 2d,  shift = u (d - c) / 2d:   x_hat = clip(round(m / (u/q)), 0, q) u/q

so `grid()` is that grid, of scale u / q and zero point 0, for `map(x)`, and a traced network holds Mul and Add before
the QuantizeLinear. Both may be folded into a layer before it; where c >= d its ReLU is then without effect.
Source: Jung et al., "Learning to quantize deep networks by optimizing quantization intervals with task loss", CVPR
2019, arXiv:1808.05779, section 3.1.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..formats.base import Learning
from .grid import TINY, Grid
from .kept import Kept
from .observers import MeanSquare, MinMax, Observer

FITS: dict[str, type[Observer]] = {"max": MinMax, "mse": MeanSquare}


class LearnedInterval(Kept):
    """QIL's activations: unsigned, after a ReLU; rescale: keep the scale of what is quantized.

    fit: where the interval starts to end, "max" or "mse"; learn: False keeps it; interval_rate: the factor on the learning
    rate of c and d, on which weight decay does not act (paper: 1/100).
    """

    method: ClassVar[str] = "QIL"
    unit: Tensor

    def __init__(
        self,
        *,
        bits: int = 8,
        rescale: bool = False,
        fit: str = "max",
        learn: bool = True,
        interval_rate: float = 0.01,
    ) -> None:
        super().__init__(bits=bits)
        if fit not in FITS:
            raise OptionError(f"LearnedInterval: fit is {fit!r}, expected one of {', '.join(FITS)}.")
        if not interval_rate > 0:
            raise OptionError(
                f"LearnedInterval: interval_rate is {interval_rate}, expected a positive factor. learn=False keeps the "
                "interval."
            )
        self.rescale = rescale
        self.fit = fit
        self.interval_rate = interval_rate
        self.center = nn.Parameter(torch.tensor(0.5), requires_grad=learn)
        self.half_width = nn.Parameter(torch.tensor(0.5), requires_grad=learn)
        self.register_buffer("unit", torch.ones(()))
        self._ends = FITS[fit]()
        self._mapping = (1.0, 0.0)

    def observe(self, x: Tensor) -> None:
        self._ends.observe(x)

    def settle(self) -> None:
        low, high = self._ends.range(bits=self.bits)
        self.refuse_negative(low)
        end = high if high > 2 * TINY else 1.0
        with torch.no_grad():
            self.center.fill_(end / 2)
            self.half_width.fill_(end / 2)
            self.unit.fill_(end if self.rescale else 1.0)
        self._ends = FITS[self.fit]()
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        tracing = torch.compiler.is_exporting() and self.state == "quantize"
        rounded: Tensor = super().forward(self.map(x) if tracing else x)
        return rounded

    def map(self, x: Tensor) -> Tensor:
        """gain x + shift, which `grid()` rounds."""
        self.grid()
        gain, shift = self._mapping
        return x if (gain, shift) == (1.0, 0.0) else x * gain + shift

    def quantize(self, x: Tensor) -> Tensor:
        center, half_width = self.center, wide_enough(self.half_width, self.center)
        soft = ((x - center + half_width) / (2 * half_width)).clamp(0, 1) * self.unit
        step = self.unit / self.largest
        with torch.no_grad():
            gain, shift = self._gain_and_shift()
            hard = ((x * gain + shift) / step).round().clamp(0, self.largest) * step
        return hard + (soft - soft.detach())  # exactly `hard`, with the gradient of `soft`

    def learning(self) -> dict[str, Learning]:
        return dict.fromkeys(("center", "half_width"), Learning(rate=self.interval_rate, decay=False))

    def present_grid(self) -> Grid:
        with torch.no_grad():
            gain, shift = self._gain_and_shift()
        self._mapping = (float(gain), float(shift))
        return Grid(float(self.unit / self.largest), 0, 0, self.largest)

    def _gain_and_shift(self) -> tuple[Tensor, Tensor]:
        center, half_width = self.center, wide_enough(self.half_width, self.center)
        gain = self.unit / (2 * half_width)
        return gain, gain * (half_width - center)


def wide_enough(half_width: Tensor, center: Tensor) -> Tensor:
    """max(|half_width|, |center| / 100, TINY), with the gradient of |half_width| everywhere."""
    size = half_width.abs()
    floor = (center.detach().abs() / 100).clamp_min(TINY)
    return torch.maximum(size.detach(), floor) + (size - size.detach())
