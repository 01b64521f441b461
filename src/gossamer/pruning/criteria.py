"""Criteria: how much a weight matters; pure functions from tensors to scores of the same shape.

A higher score is kept longer. Scores are never negative, and a pruned (zero) weight scores 0 under `magnitude`,
so it stays at the bottom of every later ranking.
"""

from __future__ import annotations

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w|. Source: Han, Pool, Tran, Dally, NIPS 2015, arXiv:1506.02626, section 3."""
    return weight.detach().abs()


def scaled_magnitude(weight: Tensor) -> Tensor:
    """|w| / rms of the layer's non-zero weights, so that layers of different scale rank fairly together."""
    alive = weight.detach()[weight.detach() != 0]
    return weight.detach().abs() / (alive.square().mean().sqrt() if alive.numel() else 1.0)


def layer_adaptive(weight: Tensor) -> Tensor:
    """LAMP: w^2 over the sum of the w^2 that are at least as large; a global ranking then sets layer ratios.

    Source: Lee, Park, Mo, Ahn, Shin, "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021,
    arXiv:2010.07611, eq. 4.
    """
    flat = weight.detach().double().square().reshape(-1)
    order = torch.argsort(flat, stable=True)
    ordered = flat[order]
    above = ordered.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(flat)
    scores[order] = torch.where(ordered > 0, ordered / above.clamp_min(1e-300), 0.0)
    return scores.reshape(weight.shape)


def random(weight: Tensor, *, seed: int = 0) -> Tensor:
    """Uniform in (0, 1] for living weights, 0 for pruned ones: the control for any other criterion."""
    generator = torch.Generator().manual_seed(seed)
    scores = 1.0 - torch.rand(weight.shape, generator=generator)
    return torch.where(weight.detach().cpu() != 0, scores, 0.0).to(weight.device)


CRITERIA = {
    "magnitude": magnitude,
    "scaled-magnitude": scaled_magnitude,
    "layer-adaptive": layer_adaptive,
    "random": random,
}
