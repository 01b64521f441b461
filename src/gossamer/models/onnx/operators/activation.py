"""Activations, and Softmax with its relatives.

Before opset 13, Softmax, LogSoftmax and Hardmax flatten their input to a matrix at `axis` (default 1) and work on its
rows; since then they work along `axis` (default -1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..values import Scalar


def Relu(x: Tensor) -> Tensor:
    return F.relu(x)


def LeakyRelu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def PRelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def Elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def Celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def Selu(
    x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Tensor:
    return gamma * F.elu(x, alpha)


def ThresholdedRelu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.threshold(x, alpha, 0.0)


def Clip(x: Tensor, min: Scalar = None, max: Scalar = None) -> Tensor:
    if min is None and max is None:
        return x
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        low, high = (
            each if each is None or isinstance(each, Tensor) else x.new_tensor(each) for each in (min, max)
        )
        return torch.clamp(x, low, high)
    return torch.clamp(x, min, max)


def Sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def HardSigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    if beta == 0.5 and math.isclose(alpha, 1 / 6, rel_tol=1e-6):
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


def HardSwish(x: Tensor) -> Tensor:
    return F.hardswish(x)


def Swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def Mish(x: Tensor) -> Tensor:
    return F.mish(x)


def Tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


def Softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


def Softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


def Gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def Shrink(x: Tensor, *, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    moved = torch.where(x > lambd, x - bias, torch.zeros_like(x))
    return torch.where(x < -lambd, x + bias, moved)


def Softmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    return _along(F.softmax, x, axis, opset)


def LogSoftmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    return _along(F.log_softmax, x, axis, opset)


def Hardmax(x: Tensor, *, axis: int | None = None, opset: int) -> Tensor:
    return _along(_hardmax, x, axis, opset)


def _hardmax(x: Tensor, dim: int) -> Tensor:
    best = x.argmax(dim, keepdim=True)
    return torch.zeros_like(x).scatter(dim, best, 1.0)


def _along(function: Callable[..., Tensor], x: Tensor, axis: int | None, opset: int) -> Tensor:
    if opset >= 13:
        return function(x, dim=-1 if axis is None else axis)
    axis = 1 if axis is None else axis % x.ndim
    if axis == x.ndim - 1:
        return function(x, dim=axis)
    return torch.unflatten(function(x.flatten(axis), dim=axis), axis, tuple(x.shape[axis:]))
