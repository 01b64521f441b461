"""Operators that move values and change none: reshapes, slices, joins, padding, casts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ModelError
from ..dtypes import dtype_of
from ..values import Ints, Known, Scalar


def Shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Known:
    return Known.of(list(x.shape)[start:end])


def Size(x: Tensor) -> Known:
    return Known.of(math.prod(x.shape))


def Identity(x: Tensor) -> Tensor:
    return x


def Dropout(
    x: Tensor, ratio: Scalar = 0.5, training_mode: Scalar = 0, *, seed: int = 0
) -> Tensor | tuple[Any, ...]:
    """Nothing, as at inference; its mask is all true."""
    return x, torch.ones_like(x, dtype=torch.bool)


def Cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    return x.to(dtype_of(to))


def CastLike(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:
    return x.to(like.dtype)


def Reshape(x: Tensor, shape: Ints, *, allowzero: int = 0) -> Tensor:
    """0 keeps the size that is there, -1 is what remains."""
    sizes = [x.shape[at] if _is(size, 0) and not allowzero else size for at, size in enumerate(shape)]
    return torch.reshape(x, sizes)


def Flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix, split at `axis`."""
    axis = axis + x.ndim if axis < 0 else axis
    if 0 < axis < x.ndim:
        x = x.flatten(axis)
        return x.flatten(0, axis - 1) if axis > 1 else x
    return torch.reshape(x, (1, -1) if axis == 0 else (-1, 1))


def Transpose(x: Tensor, *, perm: Ints | None = None) -> Tensor:
    return x.permute(perm or tuple(range(x.ndim))[::-1])


def Squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    return torch.squeeze(x) if axes is None else torch.squeeze(x, axes)


def Unsqueeze(x: Tensor, axes: Ints) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = torch.unsqueeze(x, axis)
    return x


def Concat(*xs: Tensor, axis: int) -> Tensor:
    return torch.cat(xs, axis)


def Split(
    x: Tensor, split: Ints | None = None, *, axis: int = 0, num_outputs: int | None = None, outputs: int
) -> tuple[Tensor, ...]:
    """Parts of the sizes `split`; without them, `outputs` equal parts (the last one may be smaller)."""
    if split is not None:
        return torch.split(x, list(split), axis)
    return torch.split(x, -(-x.shape[axis] // outputs), axis)


def Slice(x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None) -> Tensor:
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[at] if axes else at) % x.ndim
        step = steps[at] if steps else 1
        if step < 0:
            x, start, end, step = _turned(x, axis, start, end, step)
        stop = None if isinstance(end, int) and end >= 2**31 - 1 else end
        x = x[(slice(None),) * axis + (slice(start, stop, step),)]
    return x


def Expand(x: Tensor, shape: Ints) -> Tensor:
    """Broadcast both ways: a size of 1 in `shape` keeps what is there."""
    extra = max(len(shape) - x.ndim, 0)
    have = (1,) * extra + tuple(x.shape)
    want = (1,) * (len(have) - len(shape)) + tuple(shape)
    sizes = [new if _is(old, 1) else -1 for old, new in zip(have, want, strict=True)]
    return x.expand([1 if size == -1 and at < extra else size for at, size in enumerate(sizes)])


def Tile(x: Tensor, repeats: Ints) -> Tensor:
    return x.repeat(repeats)


def Pad(
    x: Tensor,
    pads: Ints,
    constant_value: Scalar = None,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
    value: float = 0.0,
) -> Tensor:
    """`pads` are the begins of all axes, then the ends; negative ones cut. `value` is the attribute of old opsets."""
    along = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    half = len(along)
    edges = {axis: (pads[at], pads[at + half]) for at, axis in enumerate(along)}
    if mode == "constant":
        fill = value if constant_value is None else constant_value
        first = next(
            (axis for axis in range(x.ndim) if any(not _is(e, 0) for e in edges.get(axis, (0, 0)))), None
        )
        if first is None:
            return x
        flat = [edge for axis in range(x.ndim - 1, first - 1, -1) for edge in edges.get(axis, (0, 0))]
        return F.pad(x, flat, value=float(fill) if x.is_floating_point() else int(fill))
    for axis, (begin, end) in edges.items():
        x = _mirrored(x, axis, begin, end, mode)
    return x


def Trilu(x: Tensor, k: Ints | None = None, *, upper: int = 1) -> Tensor:
    diagonal = k[0] if k else 0
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def DepthToSpace(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    count, channels, height, width = x.shape
    x = torch.reshape(x, (count, blocksize, blocksize, channels // blocksize**2, height, width))
    x = x.permute(0, 3, 4, 1, 5, 2)
    return torch.reshape(x, (count, channels // blocksize**2, height * blocksize, width * blocksize))


def SpaceToDepth(x: Tensor, *, blocksize: int) -> Tensor:
    count, channels, height, width = x.shape
    x = torch.reshape(x, (count, channels, height // blocksize, blocksize, width // blocksize, blocksize))
    x = x.permute(0, 3, 5, 1, 2, 4)
    return torch.reshape(x, (count, channels * blocksize**2, height // blocksize, width // blocksize))


def ReverseSequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """The first `lengths` entries of each sequence backwards, the others where they are."""
    time = torch.arange(x.shape[time_axis], device=x.device)
    place = lengths[:, None] - 1 - time[None]
    place = torch.where(place < 0, time[None], place)
    turned = place if batch_axis < time_axis else place.T
    return x.gather(time_axis, turned.reshape(*turned.shape, *[1] * (x.ndim - 2)).expand(x.shape))


def _is(size: Any, number: int) -> bool:
    """Whether a size is that number for sure: a symbolic one is never 0 or 1."""
    return isinstance(size, int) and size == number


def _turned(x: Tensor, axis: int, start: int, end: int, step: int) -> tuple[Tensor, int, int, int]:
    """A slice with a negative step as one of the reversed tensor."""
    size = x.shape[axis]
    start, end = (max(place + size, -1) if place < 0 else min(place, size - 1) for place in (start, end))
    return x.flip(axis), size - 1 - start, size - 1 - end, -step


def _mirrored(x: Tensor, axis: int, begin: int, end: int, mode: str) -> Tensor:
    """Padding by copies of what is there, along one axis."""
    if begin == end == 0:
        return x
    size = x.shape[axis]
    place = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        place = place.clamp(0, size - 1)
    elif mode == "wrap":
        place = place % size
    elif mode == "reflect":
        period = max(2 * (size - 1), 1)
        place = (period // 2 - (place % period - period // 2).abs()) if size > 1 else place * 0
    else:
        raise ModelError(f"Pad: unknown mode {mode!r}; expected constant, edge, reflect or wrap.")
    return torch.index_select(x, axis, place)
