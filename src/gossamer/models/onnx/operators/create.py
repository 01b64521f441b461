"""Operators that make tensors from sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dtypes import dtype_of
from ..values import Ints, Scalar


def ConstantOfShape(
    shape: Ints, *, value: Tensor | None = None, device: torch.device | None = None
) -> Tensor:
    fill, kind = (0.0, torch.float32) if value is None else (value.item(), value.dtype)
    return torch.full(shape, fill, dtype=kind, device=device)


def Range(start: Scalar, limit: Scalar, delta: Scalar, *, device: torch.device | None = None) -> Tensor:
    """The type is that of the given numbers: int64 where they are sizes."""
    kind = next((each.dtype for each in (start, limit, delta) if isinstance(each, Tensor)), None)
    numbers = [each.item() if isinstance(each, Tensor) else each for each in (start, limit, delta)]
    if kind is None and any(isinstance(each, float) for each in numbers):
        kind = torch.float32
    return torch.arange(*numbers, dtype=kind, device=device)


def EyeLike(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    kind = x.dtype if dtype is None else dtype_of(dtype)
    return torch.diagonal_scatter(
        torch.zeros_like(x, dtype=kind), torch.ones_like(x.diagonal(k), dtype=kind), k
    )
