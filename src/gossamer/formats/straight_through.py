"""straight_through: functions that are steps forward and something smoother backward.

    sign      forward: +1 where x >= 0, else -1 (sign(0) = +1: a third value would not fit one bit)
              backward, g_in / g_out:
                  identity   1                                      BinaryConnect (the latent weight is clipped instead)
                  clipped    1 for |x| <= 1, else 0                  BNN, XNOR-Net
                  approx     2 - 2|x| for |x| <= 1, else 0           Bi-Real Net (ApproxSign)
                  swish      b (2 - b x tanh(b x / 2)) / (1 + cosh(b x)), b = 5      SwishSign
    passing   forward: the given values; backward: 1 to x

Source: Bengio, Leonard, Courville, 2013, arXiv:1308.3432; Courbariaux et al., 2016, arXiv:1602.02830, eq. 4; Liu et al.,
ECCV 2018, arXiv:1808.00278, eq. 6; Darabi et al., 2018, arXiv:1812.11800.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError, nearest

SLOPES = ("identity", "clipped", "approx", "swish")
_SWISH = 5.0


def sign(x: Tensor, slope: str = "clipped") -> Tensor:
    """+1 or -1 of the shape and type of x; `slope` is one of SLOPES."""
    if slope not in SLOPES:
        raise OptionError(f"Unknown straight-through slope {slope!r}. {nearest(str(slope), SLOPES)}")
    result: Tensor = _Sign.apply(x, slope)  # type: ignore[no-untyped-call]  # torch's stub
    return result


def passing(x: Tensor, values: Tensor) -> Tensor:
    """`values` forward, and the gradient to x unchanged."""
    result: Tensor = _Passing.apply(x, values)  # type: ignore[no-untyped-call]  # torch's stub
    return result


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: str) -> Tensor:
        ctx.slope = slope
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        if ctx.slope == "identity":
            return gradient, None
        if ctx.slope == "swish":
            b = _SWISH * x
            return gradient * _SWISH * (2 - b * torch.tanh(b / 2)) / (1 + torch.cosh(b)), None
        inside = (x.abs() <= 1).to(x.dtype)
        return gradient * (inside if ctx.slope == "clipped" else inside * (2 - 2 * x.abs())), None


class _Passing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
