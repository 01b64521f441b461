"""Rate-distortion quantization: uniform grids for a given number of coded bits per weight, without training.

    1. Sensitivity of layer l, measured: a_l = KL(p || p_l) / s_l^2 on calibration inputs, p the network's outputs and
       p_l those with layer l alone rounded to the step s_l.
    2. Steps. At high rate the distortion of a layer is a_l s_l^2 and its rate N_l (h_l - log2 s_l), so at the
       optimum s_l^2 = c N_l / a_l; c is found such that the entropies of the codes meet the budget.
    3. Codes, layer by layer on the inputs of the network quantized so far: columns are rounded in turn and each error
       is passed on to the columns that are left, through the Cholesky factor of the inverse Gram matrix H^-1. A code
       is the one of two neighbours (nearest, next towards zero) with the least  ((w - q) / d_j)^2 + lambda bits(q),
       lambda = ln 2 / 6 * s^2 / mean d^2, the slope at which step 2 works.
    4. The layer's bias takes up the mean of the change of its outputs.

Activations stay float; nothing is trained and no label is used.
Sources: step allocation: Gersho, Gray, "Vector Quantization and Signal Compression", 1992, ch. 8; error feedback: Frantar,
Ashkboos, Hoefler, Alistarh, "GPTQ", ICLR 2023, arXiv:2210.17323; rate-aware choice of codes as in video coders
(RDOQ: Karczewicz et al., 2008; for networks Wiedemann et al., "DeepCABAC", 2019, arXiv:1907.11900).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .patches import supported
from .reconstruction import gram

SLOPE = math.log(2) / 6


@torch.no_grad()
def sensitivities(
    model: nn.Module, weights: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> dict[str, float]:
    """a_l of every weight (the model's own parameters, left as they were): nats of output divergence per squared step."""
    reference = [F.log_softmax(model(x), dim=-1) for x in inputs]
    count = sum(len(x) for x in inputs)
    found = {}
    for name, weight in weights.items():
        before = weight.detach().clone()
        step = float(before.std()) / 2 if before.numel() > 1 else 1.0
        try:
            weight.data = (before / step).round() * step
            divergence = sum(
                float(F.kl_div(F.log_softmax(model(x), dim=-1), r, log_target=True, reduction="sum"))
                for x, r in zip(inputs, reference, strict=True)
            )
        finally:
            weight.data = before
        found[name] = max(divergence / count, 1e-9) / step**2
    return found


def steps_for(
    weights: Mapping[str, Tensor], sensitivity: Mapping[str, float], rate: float
) -> dict[str, float]:
    """The step of every layer such that the codes' entropies add up to `rate` bits per weight."""
    shape = {name: math.sqrt(w.numel() / sensitivity[name]) for name, w in weights.items()}
    total = sum(w.numel() for w in weights.values())
    low, high = -40.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        bits = sum(entropy_bits((w / (shape[n] * 2**middle)).round()) for n, w in weights.items())
        low, high = (middle, high) if bits > rate * total else (low, middle)
    return {name: value * 2**high for name, value in shape.items()}


def entropy_bits(codes: Tensor) -> float:
    """Empirical entropy of integer codes in bits, times their number."""
    _, counts = torch.unique(codes, return_counts=True)
    return float(-(counts * (counts / counts.sum()).log2()).sum())


@torch.no_grad()
def quantize_layer(
    model: nn.Module,
    module: nn.Module,
    target: Tensor,
    step: float,
    batches: Sequence[Tensor],
    *,
    slope: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Codes times step for `target` [O, ...], and the change of the bias [O] (None where the layer has none).

    slope: factor on lambda; 0 ignores the rate. Layers without a Gram matrix are rounded to nearest.
    """
    if not supported(module):
        return (target / step).round() * step, None
    layer = next(path for path, other in model.named_modules() if other is module)
    hessians, means = gram(model, layer, batches)
    groups, rows = hessians.shape[0], target.shape[0] // hessians.shape[0]
    flat = target.detach().reshape(groups, rows, -1).double()
    quantized = torch.stack([_feedback(w, h, step, slope) for w, h in zip(flat, hessians, strict=True)])
    shift = None
    if getattr(module, "bias", None) is not None:
        shift = ((flat - quantized) @ means[:, :, None]).reshape(-1).float()
    return quantized.reshape(target.shape).float(), shift


def _feedback(weight: Tensor, hessian: Tensor, step: float, slope: float) -> Tensor:
    """Column-wise rounding with error feedback and a price on bits; float64 [rows, K]."""
    size = hessian.shape[0]
    damped = hessian + torch.eye(size, dtype=torch.float64) * (
        0.01 * float(hessian.diagonal().mean()) + 1e-12
    )
    order = damped.diagonal().argsort(descending=True, stable=True)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    ordered, result = weight[:, order], torch.empty_like(weight)
    codes = (ordered / step).round()
    for _ in range(2 if slope else 1):
        reach = int(codes.abs().max()) + 2
        bits = _code_bits(codes, reach)
        left, result = ordered.clone(), torch.empty_like(ordered)
        price = slope * SLOPE * step**2 / float(upper.diagonal().square().mean())
        for j in range(size):
            near = (left[:, j] / step).round().clamp(-reach, reach)
            best = near
            if slope:
                lower = near - near.sign()
                costs = [
                    ((left[:, j] - c * step) / upper[j, j]).square() + price * bits[(c + reach).long()]
                    for c in (near, lower)
                ]
                best = torch.where(costs[1] < costs[0], lower, near)
            codes[:, j] = best
            result[:, j] = best * step
            error = (left[:, j] - result[:, j]) / upper[j, j]
            left[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]
    unordered = torch.empty_like(result)
    unordered[:, order] = result
    return unordered


def _code_bits(codes: Tensor, reach: int) -> Tensor:
    """Ideal code length of every code from -reach to reach, from smoothed counts."""
    counts = torch.bincount((codes.clamp(-reach, reach) + reach).long().reshape(-1), minlength=2 * reach + 1)
    smoothed = counts.double() + 0.5
    return -(smoothed / smoothed.sum()).log2()
