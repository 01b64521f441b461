"""Reductions. `axes` is an attribute in older opsets and an input since 13 (ReduceSum) or 18; none means all axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..values import Ints


def ReduceMean(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(torch.mean, x, axes, keepdims, noop_with_empty_axes)


def ReduceSum(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(_sum, x, axes, keepdims, noop_with_empty_axes)


def ReduceMax(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(torch.amax, x, axes, keepdims, noop_with_empty_axes)


def ReduceMin(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(torch.amin, x, axes, keepdims, noop_with_empty_axes)


def ReduceProd(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(_product, x, axes, keepdims, noop_with_empty_axes)


def ReduceL1(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(_sum, torch.abs(x), axes, keepdims, noop_with_empty_axes)


def ReduceL2(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    if noop_with_empty_axes and not axes:
        return torch.abs(x)
    return torch.sqrt(_reduced(_sum, x * x, axes, keepdims, 0))


def ReduceSumSquare(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(_sum, x * x, axes, keepdims, noop_with_empty_axes)


def ReduceLogSum(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return torch.log(_reduced(_sum, x, axes, keepdims, noop_with_empty_axes))


def ReduceLogSumExp(
    x: Tensor, axes: Ints | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduced(torch.logsumexp, x, axes, keepdims, noop_with_empty_axes)


def ArgMax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _position(torch.argmax, x, axis, keepdims, select_last_index)


def ArgMin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _position(torch.argmin, x, axis, keepdims, select_last_index)


def TopK(x: Tensor, k: Ints, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    values, indices = torch.topk(x, k[0], axis, largest=bool(largest), sorted=bool(sorted))
    return values, indices


def _reduced(
    function: Callable[..., Tensor], x: Tensor, axes: Ints | None, keepdims: int, noop_with_empty_axes: int
) -> Tensor:
    if not axes:
        if noop_with_empty_axes:
            return x
        axes = tuple(range(x.ndim))
    return function(x, dim=axes, keepdim=bool(keepdims)) if axes else x


def _sum(x: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    return torch.sum(x, dim, keepdim=keepdim, dtype=x.dtype)


def _product(x: Tensor, dim: Ints, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim, dtype=x.dtype)
    return x


def _position(function: Callable[..., Tensor], x: Tensor, axis: int, keepdims: int, last: int) -> Tensor:
    if last:
        return x.shape[axis] - 1 - function(x.flip(axis), dim=axis, keepdim=bool(keepdims))
    return function(x, dim=axis, keepdim=bool(keepdims))
