"""Sign and MultiSign: activations of one bit, and of several.

    Sign        a = +1 where x >= 0, else -1; backward by `slope` (formats.straight_through)
    MultiSign   a = sum_n beta_n H_n(x),  H_n(x) = +1 where x + v_n >= 1/2, else -1
                dH_n/dx = dH_n/dv_n = 1 for 0 <= x + v_n <= 1, else 0;  da/dbeta_n = H_n
                v starts at 1/2 - quantiles of a half-normal, beta at 1/N; both trained

Sources: Courbariaux et al., 2016, arXiv:1602.02830, eq. 4; Lin, Zhao, Pan, NIPS 2017, arXiv:1711.11294, eq. 6 to 9.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import OptionError, nearest
from ..formats.straight_through import SLOPES, passing, sign


class Sign(nn.Module):
    """+1 or -1; slope: identity, clipped, approx or swish."""

    def __init__(self, slope: str = "clipped") -> None:
        super().__init__()
        if slope not in SLOPES:
            raise OptionError(f"Sign: unknown slope {slope!r}. {nearest(str(slope), SLOPES)}")
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return sign(x, self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope!r}"


class MultiSign(nn.Module):
    """A sum of `bases` signs with trained thresholds and scales."""

    def __init__(self, bases: int = 3) -> None:
        super().__init__()
        if not (isinstance(bases, int) and 1 <= bases <= 8):
            raise OptionError(f"MultiSign: bases is 1 to 8; received {bases!r}.")
        quantiles = (torch.arange(bases, dtype=torch.float64) + 0.5) / bases
        thresholds = torch.special.ndtri((1 + quantiles) / 2)  # of |x|, x normal
        self.shift = nn.Parameter((0.5 - thresholds).float())
        self.beta = nn.Parameter(torch.full((bases,), 1 / bases))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for beta, shift in zip(self.beta, self.shift, strict=True):
            inside = (x + shift).clamp(0, 1)
            total = total + beta * passing(inside, torch.where(inside >= 0.5, 1.0, -1.0).to(x.dtype))
        return total
