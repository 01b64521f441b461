"""LearnedStep: a grid through zero whose step is trained by the task loss (LSQ, activations).

    r = clip(v / s, -Qn, Qp)        v_hat = round(r) s
    dv_hat/dv = 1 inside the range, 0 outside
    dv_hat/ds = round(v / s) - v / s inside, -Qn or Qp outside; the sum over v is multiplied by g = 1 / sqrt(N Qp)

Qn = 0, Qp = 2^bits - 1 where no value is negative, else Qn = 2^(bits-1), Qp = 2^(bits-1) - 1. N: features of one
sample. s starts at 2 mean|v| / sqrt(Qp) over all that was observed (the paper: over the first batch).
What is trained may cross zero; its absolute value is the step, so a step is always positive. Weight
decay does not act on it.
Source: Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153, sections 2.1 and 2.2.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..formats.base import Learning
from .grid import TINY, Grid
from .kept import Kept
from .observers import MinMax


class LearnedStep(Kept):
    """LSQ for activations; signed: True, False, or None to decide by what is observed."""

    method: ClassVar[str] = "LSQ"

    def __init__(self, *, bits: int = 8, signed: bool | None = None) -> None:
        super().__init__(bits=bits, signed=bool(signed))
        self.decides = signed is None
        self.step = nn.Parameter(torch.ones(()))
        self._forget()

    @property
    def limits(self) -> tuple[int, int]:
        """(-Qn, Qp)."""
        half: int = 2 ** (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def observe(self, x: Tensor) -> None:
        self._ends.observe(x)
        self._sum += sum_of_magnitudes(x)
        self._count += x.numel()

    def settle(self) -> None:
        low, _ = self._ends.range()
        if self.decides:
            self.signed = low < 0
        elif not self.signed:
            self.refuse_negative(low)
        mean = self._sum / max(self._count, 1)
        with torch.no_grad():
            self.step.fill_(max(2 * mean / math.sqrt(self.limits[1]), TINY))
        self._forget()
        self.begin()

    def quantize(self, x: Tensor) -> Tensor:
        low, high = self.limits
        features = max(x.numel() // max(len(x), 1), 1) if x.dim() else 1
        step = positive(self.step, gain=1 / math.sqrt(features * high))
        ratio = (x / step).clamp(low, high)
        return (ratio + (ratio.round() - ratio).detach()) * step

    def learning(self) -> dict[str, Learning]:
        return {"step": Learning(decay=False)}

    def present_grid(self) -> Grid:
        return Grid(float(positive(self.step.detach())), 0, *self.limits)

    def _forget(self) -> None:
        self._ends, self._sum, self._count = MinMax(), 0.0, 0


def positive(value: Tensor, *, gain: float = 1.0) -> Tensor:
    """max(|value|, TINY); its gradient is that of |value| times `gain`, also below TINY, where it would be stuck."""
    size = value.abs()
    return size.detach().clamp_min(TINY) + (size - size.detach()) * gain


def sum_of_magnitudes(x: Tensor) -> float:
    """sum |x| in float64, added in one order whatever the number of threads."""
    return float(np.abs(x.detach().float().cpu().numpy()).sum(dtype=np.float64))
