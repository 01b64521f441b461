"""QIL: weights below an interval are pruned, those above it clipped, and the interval is trained; weights.

    t = clip((|w| - c + d) / (2 d), 0, 1)        w_hat = u sign(w) round(t^gamma q) / q,  q = 2^(bits-1) - 1
    latent w: float [*shape]      center c, half_width d, gamma: float [1] each; all four are trained
    scale u: float [1], fixed

Rounding is straight-through. With p = gamma t^(gamma - 1) / 2d inside the interval, and all zero outside:
dw_hat/dw = u p,  dw_hat/dc = -u p sign(w),  dw_hat/dd = -u p (|w| - c) / d sign(w),  dw_hat/dgamma = u t^gamma ln t sign(w).

The interval starts at [0, max|w|] with gamma = 1; d is kept above |c| / 100 and gamma above 0.01. Of 2 bits that interval
prunes nearly everything (98 % of ResNet-20), so that norms divide by almost nothing and gradients explode; fit="mse" starts
at [0, e] with the e of the least squared error instead. The paper has u = 1, so that weights reach from -1 to 1 and what
follows (a batch norm) must be trained to it; rescale=True fixes u to the first c + d, which fits a network already trained.
The paper goes from 5 to 4, 3 and 2 bits, each from the parts of the last:
`attach(module, "weight", QIL(bits=3), parts_of(model, name))`. c, d and gamma are not decayed, and their learning rate is
1/100 of the weights' (`interval_rate`), as in the paper.
Stored: integers -q..q times u / q; pruned weights are exactly zero. Activations: quantizers.LearnedInterval.
Source: Jung et al., "Learning to quantize deep networks by optimizing quantization intervals with task loss", CVPR
2019, arXiv:1808.05779, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..errors import OptionError
from ..formats.base import Learning, Parts, WeightFormat, check_finite
from ..formats.uniform import Uniform, on_grid
from ..quantizers.grid import TINY
from ..quantizers.interval import FITS, wide_enough

INTERVAL = ("center", "half_width", "gamma")
SMALLEST_T = 1e-6  # ln t and t^(gamma - 1) stay finite
SMALLEST_GAMMA = 1e-2


@dataclass(frozen=True, kw_only=True)
class QIL(WeightFormat):
    """Trained pruning and clipping thresholds; rescale: keep the scale of the weights that are encoded.

    fit: where the interval starts to end, "max" or "mse"; learn: False keeps it and trains the weights alone;
    interval_rate: the factor on the learning rate of c, d and gamma.
    """

    layout: ClassVar[str] = "uniform"
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "center", "half_width", "gamma", "scale")
    fixed_parts: ClassVar[tuple[str, ...]] = ("scale",)

    bits: int = 4
    rescale: bool = False
    fit: str = "max"
    learn: bool = True
    interval_rate: float = 0.01

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 8):
            raise OptionError(f"QIL: bits must be 2 to 8; received {self.bits!r}.")
        if self.fit not in FITS:
            raise OptionError(f"QIL: fit is one of {', '.join(FITS)}; received {self.fit!r}.")
        if not self.interval_rate > 0:
            raise OptionError(
                f"QIL: interval_rate must be positive; received {self.interval_rate!r}. "
                "learn=False keeps the interval."
            )

    def fixed(self) -> set[str]:
        return super().fixed() | (set() if self.learn else set(INTERVAL))

    def learning(self) -> dict[str, Learning]:
        return dict.fromkeys(INTERVAL, Learning(rate=self.interval_rate, decay=False))

    @property
    def largest(self) -> int:
        """q, the largest code."""
        largest: int = 2 ** (self.bits - 1) - 1
        return largest

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, "QIL")
        dense = dense.detach().float().clone()
        end = self._end(dense).clamp_min(2 * TINY) if dense.numel() else dense.new_ones(1)
        scale = end.clone() if self.rescale else torch.ones_like(end)
        return dense, end / 2, end / 2, torch.ones_like(end), scale

    def decode(self, *parts: Tensor) -> Tensor:
        ratio = self._ratio(*parts)
        return (ratio + (ratio.round() - ratio).detach()) * (parts[4] / self.largest)

    def store(self, *parts: Tensor) -> Stored:
        return on_grid(self._ratio(*parts).round().int(), parts[4] / self.largest)

    def _end(self, dense: Tensor) -> Tensor:
        """Where the first interval ends; float [1]."""
        if self.fit == "max":
            return dense.abs().amax().reshape(1)
        uniform = Uniform(bits=self.bits, fit="mse")  # its grid is that of the interval [0, largest step]
        return uniform.scale(*uniform.encode(dense)) * self.largest

    def _ratio(self, *parts: Tensor) -> Tensor:
        """sign(w) t^gamma q, the code before rounding."""
        latent, center, half_width, gamma, _ = parts
        half_width = wide_enough(half_width, center)
        t = (latent.abs() - center + half_width) / (2 * half_width)
        size = gamma.abs()
        gamma = size.detach().clamp_min(SMALLEST_GAMMA) + (size - size.detach())
        power = torch.where(t > 0, t.clamp(SMALLEST_T, 1) ** gamma, 0.0)
        return latent.sign() * power * self.largest
