"""LSQ: a uniform grid whose step is trained by the task loss, weights. Activations: quantizers.LearnedStep.

    r = clip(w / s, -Qn, Qp)        w_hat = round(r) s
    dw_hat/dw = 1 inside the range, 0 outside
    dw_hat/ds = round(w / s) - w / s inside, -Qn or Qp outside; the sum over w is multiplied by g = 1 / sqrt(N Qp)
    latent: float [*shape], trained      scale: float [1], [O] or one per group, trained; |scale| is the step s

Qp = 2^(bits-1) - 1, and Qn = 2^(bits-1) as in the paper; narrow=True leaves the lowest code out (Qn = Qp), as integer
kernels without -128 want it. N: the weights that share a step (the paper has one step per layer). s starts at
2 mean|w| / sqrt(Qp) (`fit="mean"`), or as in Uniform. A channel of zeros starts with the tensor's step. Weight decay does
not act on s.
Stored: as Uniform.
Source: Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153, sections 2.1 and 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError
from ..formats import Uniform
from ..formats.base import Learning
from ..quantizers.learned_step import positive


@dataclass(frozen=True, kw_only=True)
class LSQ(Uniform):
    """Uniform with a trained step; options of Uniform, fit="mean", and narrow."""

    fixed_parts: ClassVar[tuple[str, ...]] = ()
    fits: ClassVar[tuple[str, ...]] = ("mean", "max", "mse")

    bits: int | None = 4
    fit: str = "mean"
    narrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits is None:
            raise OptionError("LSQ: bits must be 2 to 16; received None, and an open range has no best step.")

    def learning(self) -> dict[str, Learning]:
        return {"scale": Learning(decay=False)}

    @property
    def smallest(self) -> int:
        """-Qn."""
        return -self.largest if self.narrow else -self.largest - 1

    def scale(self, *parts: Tensor) -> Tensor:
        latent, scale = parts
        sharing = max(latent.numel() / max(scale.numel(), 1), 1)
        return positive(scale, gain=1 / math.sqrt(sharing * self.largest))

    def _fit(self, dense: Tensor) -> Tensor:
        if self.fit != "mean":
            return super()._fit(dense)
        counts = self._rows(torch.ones_like(dense)).sum(dim=1).cpu().double()  # a short group is filled up
        magnitudes = np.abs(self._rows(dense).cpu().numpy()).sum(axis=1, dtype=np.float64)
        sums = torch.from_numpy(magnitudes)
        mean = sums.sum() / counts.sum() if sums.any() else sums.new_tensor(math.sqrt(self.largest) / 2)
        means = torch.where(sums > 0, sums / counts, mean)
        return (
            (2 * means / math.sqrt(self.largest))
            .float()
            .clamp_min(torch.finfo(torch.float32).tiny)
            .to(dense.device)
        )
