"""Operators that pick and place by index. Negative indices count from the end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ModelError
from ..values import Ints, Operand

_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def Gather(x: Tensor, indices: Operand, *, axis: int = 0) -> Tensor:
    """A constant index of one element selects and drops the axis; a table of floats with indices is an embedding."""
    if not isinstance(indices, Tensor):
        return torch.select(x, axis, indices)
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return F.embedding(_counted(indices, x.shape[0]), x)
    axis = axis % x.ndim
    picked = torch.index_select(x, axis, _counted(indices, x.shape[axis]).reshape(-1))
    if indices.ndim == 1:
        return picked
    return torch.reshape(picked, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def GatherElements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis = axis % x.ndim
    cut = [slice(0, size) if at != axis else slice(None) for at, size in enumerate(indices.shape)]
    return torch.gather(x[tuple(cut)], axis, _counted(indices, x.shape[axis]))


def GatherND(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """The last axis of `indices` holds positions along the axes of `x` behind the `batch_dims` shared ones."""
    depth = indices.shape[-1]
    shared = [
        torch.arange(x.shape[at], device=x.device).reshape(
            [-1 if at == a else 1 for a in range(indices.ndim - 1)]
        )
        for at in range(batch_dims)
    ]
    return x[(*shared, *(indices[..., at].long() for at in range(depth)))]


def ScatterElements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    axis = axis % x.ndim
    places = _counted(indices, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, places, updates)
    return torch.scatter_reduce(x, axis, places, updates, _reduction(reduction))


def ScatterND(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """A copy of `x` with `updates` at the positions in the last axis of `indices`."""
    places = tuple(indices[..., at].long() for at in range(indices.shape[-1]))
    if reduction in ("none", "add"):
        return x.index_put(places, updates, accumulate=reduction == "add")
    flat, width = torch.zeros_like(places[0]), 1
    for at in reversed(range(len(places))):
        flat = flat + _counted(places[at], x.shape[at]) * width
        width = width * x.shape[at]
    rows = torch.reshape(x, (width, -1))
    wanted = torch.reshape(updates, (flat.numel(), -1))
    index = torch.reshape(flat, (-1, 1)).expand(wanted.shape)
    return torch.reshape(torch.scatter_reduce(rows, 0, index, wanted, _reduction(reduction)), x.shape)


def OneHot(indices: Tensor, depth: Ints, values: Tensor, *, axis: int = -1) -> Tensor:
    """`values` are [off, on]; an index outside of the depth is off everywhere."""
    places = indices.long().unsqueeze(axis)
    places = torch.where(places < 0, places + depth[0], places)
    along = torch.arange(depth[0], device=indices.device)
    along = along.reshape([-1 if at == axis % places.ndim else 1 for at in range(places.ndim)])
    return torch.where(places == along, values[1], values[0])


def NonZero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T


def Compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    if axis is None:
        x, axis = x.flatten(), 0
    return torch.index_select(x, axis, torch.nonzero(condition).reshape(-1))


def _counted(indices: Tensor, size: int) -> Tensor:
    """Indices from 0, as int64."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _reduction(name: str) -> str:
    if name not in _REDUCTIONS:
        raise ModelError(f"Scatter: unknown reduction {name!r}; expected one of {', '.join(_REDUCTIONS)}.")
    return _REDUCTIONS[name]
