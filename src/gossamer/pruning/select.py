"""Selection: from scores to an exact choice of what is kept; bool masks, True = kept.

    by_fraction   per layer: prune exactly floor(sparsity * N) weights
    by_quality    per layer: prune |w| <= q * std(w), std over the weights that are not yet zero
    globally      one ranking over all layers: prune exactly floor(sparsity * sum N)

Ties are broken by position (the earlier weight goes first), so a choice is exact and repeatable.
Source: Han, Pool, Tran, Dally, NIPS 2015, arXiv:1506.02626, section 3.1 (quality parameter).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import OptionError


def by_fraction(scores: Tensor, sparsity: float) -> Tensor:
    """The mask that drops the floor(sparsity * N) lowest scores; `sparsity` in [0, 1)."""
    if not 0 <= sparsity < 1:
        raise OptionError(
            f"sparsity is the fraction of zeros, 0 <= sparsity < 1; received {sparsity!r}. "
            "A layer pruned to nothing cannot compute."
        )
    return _drop_lowest(scores, exact_count(sparsity, scores.numel()))


def exact_count(sparsity: float, total: int) -> int:
    """floor(sparsity * total), safe against 0.29 * 100 = 28.999999999999996."""
    return math.floor(sparsity * total + 1e-9)


def by_quality(weight: Tensor, quality: float) -> Tensor:
    """The mask |w| > quality * std(w), the standard deviation over the non-zero weights."""
    if not quality >= 0:
        raise OptionError(
            f"quality is a multiple of the standard deviation, at least 0; received {quality!r}."
        )
    alive = weight.detach()[weight.detach() != 0]
    threshold = quality * float(alive.std(correction=0)) if alive.numel() else 0.0
    return weight.detach().abs() > threshold


def globally(scores: dict[str, Tensor], sparsity: float, *, at_least: int = 1) -> dict[str, Tensor]:
    """Masks that drop the floor(sparsity * sum N) lowest scores of all layers together.

    Each layer keeps its `at_least` best weights whatever the ranking says; the next lowest elsewhere go instead.
    """
    flat = torch.cat([_protected(s, at_least).reshape(-1).cpu().double() for s in scores.values()])
    if not 0 <= sparsity < 1:
        raise OptionError(f"sparsity is the fraction of zeros, 0 <= sparsity < 1; received {sparsity!r}.")
    kept = _drop_lowest(flat, min(exact_count(sparsity, flat.numel()), int(torch.isfinite(flat).sum())))
    masks, start = {}, 0
    for name, score in scores.items():
        masks[name] = kept[start : start + score.numel()].reshape(score.shape).to(score.device)
        start += score.numel()
    return masks


def _protected(scores: Tensor, at_least: int) -> Tensor:
    protected = scores.detach().clone().double().reshape(-1)
    best = protected.topk(min(at_least, protected.numel())).indices
    protected[best] = float("inf")
    return protected


def _drop_lowest(scores: Tensor, count: int) -> Tensor:
    """Exactly `count` False entries at the lowest scores; equal scores are dropped in memory order."""
    flat = scores.detach().reshape(-1)
    kept = torch.ones_like(flat, dtype=torch.bool)
    if count == 0:
        return kept.reshape(scores.shape)
    threshold = flat.kthvalue(count).values
    below = flat < threshold
    kept[below] = False
    ties = (flat == threshold).nonzero().reshape(-1)
    kept[ties[: count - int(below.sum())]] = False
    return kept.reshape(scores.shape)
