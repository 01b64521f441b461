"""ClipLatent: after every step, latent weights are put back into the range that their format allows.

    w <- clip(w, -limit, limit)        limit: `WeightFormat.limits`, 1 or H for binary weights

A latent weight far outside would need many steps before its sign flips, while its gradient says so at once.
Source: Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015, arXiv:1511.00363, section 2.4.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from gossamer import formats
from gossamer.training.callbacks import Callback


class ClipLatent(Callback):
    """Clips every attached format that has limits."""

    @torch.no_grad()
    def on_step_end(self, model: nn.Module, optimizer: Optimizer) -> None:
        for name, entry in formats.attached(model).items():
            parts = formats.parts_of(model, name)
            limits = entry.format.limits(*parts)
            for part, tensor in zip(entry.format.own_parts, parts, strict=False):
                if part in limits:
                    tensor.clamp_(-limits[part], limits[part])
