"""MultiBinary: a weight is a sum of binary bases with a scale each (ABC-Net).

    B_m = sign(w - mean(w) + u_m std(w)),   u_m = -1 + 2 (m - 1) / (M - 1), m = 1..M   (u_1 = 0 for M = 1)
    a   = argmin |w - B a|^2 = (B^T B + ridge)^-1 B^T w          w_hat = a_1 B_1 + ... + a_M B_M
    latent w: float [*shape], trained; the gradient of w_hat reaches it times (a_1 + ... + a_M), with a as a constant

mean, std and a belong to the whole tensor, as in the paper, or to each output channel, which is better and costs O M scales.
They are found anew from the latent weights in each forward. The ridge of 1e-6 n keeps the system solvable where two bases
coincide (few weights, or all equal).
Stored: M bits per weight, plus M (or M O) float32 scales (layout binary).
Error:  |w - w_hat| / |w| of Gaussian weights: 0.60, 0.52, 0.35, 0.28 for M = 1, 2, 3, 5.
Source: Lin, Zhao, Pan, "Towards accurate binary convolutional neural network", NIPS 2017, arXiv:1711.11294, eq. 1 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Stored
from ..errors import OptionError
from .base import Learning, Parts, WeightFormat, check_finite
from .binary import Binary, planes
from .straight_through import passing

RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class MultiBinary(WeightFormat):
    """`bases` binary tensors; granularity: "tensor" or "channel" for their scales."""

    layout: ClassVar[str] = Binary.layout
    own_parts: ClassVar[tuple[str, ...]] = ("latent",)

    bases: int = 3
    granularity: str = "tensor"

    def __post_init__(self) -> None:
        if not (isinstance(self.bases, int) and 1 <= self.bases <= 8):
            raise OptionError(f"MultiBinary: bases is 1 to 8; received {self.bases!r}.")
        if self.granularity not in ("tensor", "channel"):
            raise OptionError(
                f"MultiBinary: granularity is tensor or channel; received {self.granularity!r}."
            )

    def learning(self) -> dict[str, Learning]:
        return {"latent": Learning(decay=False)}

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, type(self).__name__)
        return (dense.detach().float().clone(),)

    def decode(self, *parts: Tensor) -> Tensor:
        (latent,) = parts
        negative, scale = self.fitted(latent)
        spread = scale.reshape(self.bases, -1, *([1] * (latent.dim() - 1)))
        dense = torch.zeros_like(latent)
        for one, factor in zip(negative, spread, strict=True):  # in the order in which the file's rule adds
            dense = dense + torch.where(one, -factor, factor)
        total = spread.sum(dim=0).expand_as(latent) if latent.dim() else spread.sum()
        return passing(latent * total, dense)

    @torch.no_grad()
    def fitted(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Where each base is -1, bool [M, *shape], and the scales, float [M, 1] or [M, O]."""
        per_channel = self.granularity == "channel" and latent.dim() > 1
        rows = latent.double().reshape(len(latent) if per_channel else 1, -1)
        shifts = (
            torch.linspace(-1, 1, self.bases, dtype=torch.float64)
            if self.bases > 1
            else torch.zeros(1).double()
        )
        centred = rows - rows.mean(dim=1, keepdim=True)
        spread = rows.std(dim=1, keepdim=True, correction=0)
        negative = centred + shifts.to(rows.device)[:, None, None] * spread < 0  # [M, rows, n]
        bases = (1 - 2 * negative.double()).movedim(0, 2)  # [rows, n, M]
        gram = bases.mT @ bases + RIDGE * rows.shape[1] * torch.eye(
            self.bases, dtype=torch.float64, device=rows.device
        )
        scale = torch.linalg.solve(gram, bases.mT @ rows[:, :, None])[:, :, 0]  # [rows, M]
        return negative.reshape(self.bases, *latent.shape), scale.T.float()

    def store(self, *parts: Tensor) -> Stored:
        (latent,) = parts
        negative, scale = self.fitted(latent.detach().cpu())
        return planes(negative, scale)
