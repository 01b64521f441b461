"""Proximal operators: the exact backward step for penalties that are not smooth, which is what makes weights exactly zero.

    prox(v) = argmin_w  t g(w) + |w - v|^2 / 2

    soft_threshold       g = sum |w|             sign(v) max(|v| - t, 0)
    group_threshold      g = sum_groups |w_G|_2  max(1 - t / |v_G|_2, 0) v_G
    singular_threshold   g = |W|_* (nuclear)     U diag(max(sigma - t, 0)) V^T

Forward-backward splitting takes an optimizer step on the smooth loss, then the prox with t = lambda tau. `step_sizes` reads
tau off the optimizer: lr of this step for plain SGD, lr / (1 - momentum) with momentum, so that the fixed point is the
minimum of loss + lambda g whatever the momentum. Adam scales every weight by itself, for which these are not the proximal
operators: it is refused. Weights under such a penalty need no weight decay beside it.
Source: Combettes, Wajs, "Signal recovery by proximal forward-backward splitting", 2005; Yuan, Lin, "Model selection and
estimation in regression with grouped variables", 2006.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import OptionError


def soft_threshold(values: Tensor, amount: float) -> Tensor:
    """Every value moves towards zero by `amount`, and stops there."""
    moved: Tensor = torch.nn.functional.softshrink(values, amount)
    return moved


def group_threshold(values: Tensor, amount: float | Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Every group (all entries along `dims`) gets shorter by `amount`, and zero when it was not longer."""
    norm: Tensor = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
    length = (1 - amount / norm.clamp_min(torch.finfo(values.dtype).tiny)).clamp_min(0)
    return values * length


def singular_threshold(matrices: Tensor, amount: float) -> Tensor:
    """Every singular value of the matrices [..., M, N] shrinks by `amount`, and is zero when it was not larger."""
    u, sigma, vh = torch.linalg.svd(matrices, full_matrices=False)
    shrunk: Tensor = (u * (sigma - amount).clamp_min(0)[..., None, :]) @ vh
    return shrunk


def step_sizes(optimizer: Optimizer) -> dict[Tensor, float]:
    """{parameter: tau} of the step just taken.

    Raises: OptionError for optimizers with a step size of its own for every weight.
    """
    sizes = {}
    for group in optimizer.param_groups:
        if "betas" in group or "momentum" not in group:
            kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
            raise OptionError(
                f"{kind}: a proximal step needs one step size for all weights of a group, as SGD has; train with "
                "optimizer='sgd', or put only the other parameters into it."
            )
        tau = group["lr"] * (1 - group.get("dampening", 0)) / (1 - group["momentum"])
        sizes.update(dict.fromkeys(group["params"], tau))
    return sizes
