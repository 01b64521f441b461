"""TTQ: ternary weights whose two values are trained.

    w_hat = +W_p where latent > D,  -W_n where latent < -D,  else 0       D = threshold max |latent|
    dL/dW_p = sum of g over the positive,  dL/dW_n = - sum of g over the negative
    dL/dlatent = W_p g, g, W_n g  where w_hat is positive, zero, negative
    latent: float [*shape]      positive, negative: float [1], trained, started at the mean magnitudes; used by |.|

Stored: codes of 2 bits and three centroids (layout codebook), per layer.
Source: Zhu, Han, Mao, Dally, "Trained ternary quantization", ICLR 2017, arXiv:1612.01064, eq. 6 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..artifact.stored import Floats, Ints, Stored
from ..errors import OptionError
from ..formats import Codebook, WeightFormat
from ..formats.base import Learning, Parts, check_finite


@dataclass(frozen=True, kw_only=True)
class TTQ(WeightFormat):
    """{-W_n, 0, +W_p} per layer; threshold: a fraction of the largest magnitude."""

    layout: ClassVar[str] = Codebook.layout
    own_parts: ClassVar[tuple[str, ...]] = ("latent", "positive", "negative")

    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise OptionError(
                f"TTQ: threshold is a fraction of the largest |w|, 0 <= threshold < 1; received {self.threshold!r}."
            )

    def learning(self) -> dict[str, Learning]:
        return {"positive": Learning(decay=False), "negative": Learning(decay=False)}

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        dense = dense.detach().float().clone()
        codes = self.codes(dense)
        return dense, _mean(dense, codes > 0), _mean(dense, codes < 0)

    def decode(self, *parts: Tensor) -> Tensor:
        latent, positive, negative = parts
        result: Tensor = _Trained.apply(latent, positive.abs(), negative.abs(), self.codes(latent))  # type: ignore[no-untyped-call]  # torch's stub
        return result

    @torch.no_grad()
    def codes(self, latent: Tensor) -> Tensor:
        """{-1, 0, 1} as float [*shape]."""
        limit = self.threshold * (latent.abs().max() if latent.numel() else 0.0)
        return latent.sign() * (latent.abs() > limit)

    def store(self, *parts: Tensor) -> Stored:
        latent, positive, negative = (part.detach().cpu() for part in parts)
        codes = (self.codes(latent) + 1).to(torch.uint8).numpy().reshape(-1)
        centroids = np.array([-abs(float(negative)), 0.0, abs(float(positive))], np.float32)
        return Stored(
            self.layout, tuple(latent.shape), {"codes": Ints(codes, 2), "centroids": Floats(centroids)}
        )


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, positive: Tensor, negative: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(positive, negative, codes)
        return torch.where(codes > 0, positive, torch.where(codes < 0, -negative, torch.zeros_like(positive)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        positive, negative, codes = ctx.saved_tensors
        up, down = codes > 0, codes < 0
        gain = torch.where(up, positive, torch.where(down, negative, torch.ones_like(positive)))
        return gradient * gain, (gradient * up).sum().reshape(1), -(gradient * down).sum().reshape(1), None


def _mean(dense: Tensor, where: Tensor) -> Tensor:
    return ((dense.abs() * where).sum() / where.sum().clamp_min(1)).reshape(1)
