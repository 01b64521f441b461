"""Convolutions with weights that are not constant, and pools.

`pads` are the begins of all spatial axes, then the ends. torch pads evenly and by at most half a window; all other
padding is done before. auto_pad SAME gives ceil(size / stride) outputs, the odd pixel at the end (UPPER) or the begin.
A window rounded in by ceil_mode may not start in the padding at the end.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ModelError
from ..values import Ints

_CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX_POOL: tuple[Any, ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVG_POOL: tuple[Any, ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MEAN: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


def padded(
    x: Tensor,
    *,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: Ints = (),
    auto_pad: str = "NOTSET",
    value: float = 0.0,
) -> Tensor:
    """The input of a window operator with its padding around it."""
    begins, ends = edges(x, kernel, strides, dilations, pads, auto_pad)
    return _surrounded(x, begins, ends, value)


def edges(
    x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, pads: Ints, auto_pad: str
) -> tuple[list[int], list[int]]:
    """(padding at the begin, padding at the end) of each spatial axis."""
    count = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
            ends.append(total - begins[-1])
        return begins, ends
    if auto_pad == "VALID" or not pads:
        return [0] * count, [0] * count
    return list(pads[:count]), list(pads[count:])


def Conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: Ints = (),
    strides: Ints = (),
    dilations: Ints = (),
    pads: Ints = (),
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    count = weight.ndim - 2
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    x = padded(
        x, kernel=tuple(weight.shape[2:]), strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    return _CONVOLVE[count - 1](x, weight, bias, strides, 0, dilations, group)


def ConvTranspose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: Ints = (),
    strides: Ints = (),
    dilations: Ints = (),
    pads: Ints = (),
    output_padding: Ints = (),
    output_shape: Ints = (),
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    count = weight.ndim - 2
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    full = _TRANSPOSED[count - 1](x, weight, bias, strides, 0, output_padding or 0, group, dilations)
    return cut(full, x, strides=strides, pads=pads, output_shape=output_shape, auto_pad=auto_pad)


def cut(
    full: Tensor,
    x: Tensor,
    *,
    strides: Ints,
    pads: Ints = (),
    output_shape: Ints = (),
    auto_pad: str = "NOTSET",
) -> Tensor:
    """What a transposed convolution of `x` keeps of its full output: the padding is cut off."""
    count = len(strides)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        output_shape = tuple(size * s for size, s in zip(x.shape[2:], strides, strict=True))
    begins, ends = list(pads[:count]) or [0] * count, list(pads[count:]) or [0] * count
    for at, wanted in enumerate(output_shape):
        total = full.shape[2 + at] - wanted
        begins[at] = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        ends[at] = total - begins[at]
    return _surrounded(full, [-begin for begin in begins], [-end for end in ends], 0.0)


def MaxPool(
    x: Tensor,
    *,
    kernel_shape: Ints,
    strides: Ints = (),
    dilations: Ints = (),
    pads: Ints = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Tensor:
    count = len(kernel_shape)
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    begins, ends = edges(x, kernel_shape, strides, dilations, pads, auto_pad)
    pool = _MAX_POOL[count - 1]
    if _native(begins, ends, kernel_shape):
        maximum: Tensor = pool(x, kernel_shape, strides, begins, dilations, bool(ceil_mode))
        return maximum
    ends = _ends(x, kernel_shape, strides, dilations, begins, ends, ceil_mode)
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    maximum = pool(_surrounded(x, begins, ends, lowest), kernel_shape, strides, 0, dilations)
    return maximum


def AveragePool(
    x: Tensor,
    *,
    kernel_shape: Ints,
    strides: Ints = (),
    dilations: Ints = (),
    pads: Ints = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    count = len(kernel_shape)
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    begins, ends = edges(x, kernel_shape, strides, dilations, pads, auto_pad)
    if _native(begins, ends, kernel_shape) and all(d == 1 for d in dilations):
        average: Tensor = _AVG_POOL[count - 1](
            x, kernel_shape, strides, begins, bool(ceil_mode), bool(count_include_pad)
        )
        return average
    last = _ends(x, kernel_shape, strides, dilations, begins, ends, ceil_mode)
    ones = torch.ones_like(x[:1, :1])
    if count_include_pad:
        ones = _surrounded(ones, begins, ends, 1.0)
        ones = _surrounded(ones, [0] * count, [b - e for b, e in zip(last, ends, strict=True)], 0.0)
    else:
        ones = _surrounded(ones, begins, last, 0.0)
    total = _summed(_surrounded(x, begins, last, 0.0), kernel_shape, strides, dilations)
    return total / _summed(ones, kernel_shape, strides, dilations)


def LpPool(
    x: Tensor,
    *,
    kernel_shape: Ints,
    strides: Ints = (),
    dilations: Ints = (),
    pads: Ints = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> Tensor:
    count = len(kernel_shape)
    strides, dilations = strides or (1,) * count, dilations or (1,) * count
    begins, ends = edges(x, kernel_shape, strides, dilations, pads, auto_pad)
    ends = _ends(x, kernel_shape, strides, dilations, begins, ends, ceil_mode)
    powers = _surrounded(x.abs() ** p, begins, ends, 0.0)
    return _summed(powers, kernel_shape, strides, dilations) ** (1 / p)


def GlobalAveragePool(x: Tensor) -> Tensor:
    if 3 <= x.ndim <= 5:
        mean: Tensor = _MEAN[x.ndim - 3](x, 1)
        return mean
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def GlobalMaxPool(x: Tensor) -> Tensor:
    return torch.amax(x, tuple(range(2, x.ndim)), keepdim=True)


def GlobalLpPool(x: Tensor, *, p: int = 2) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)
    return length


def _surrounded(x: Tensor, begins: Ints | list[int], ends: Ints | list[int], value: float) -> Tensor:
    if not any(begins) and not any(ends):
        return x
    flat = [edge for pair in zip(reversed(begins), reversed(ends), strict=True) for edge in pair]
    return F.pad(x, flat, value=value)


def _native(begins: list[int], ends: list[int], kernel: Ints) -> bool:
    return begins == ends and all(2 * pad <= k for pad, k in zip(begins, kernel, strict=True))


def _ends(
    x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, begins: list[int], ends: list[int], ceil: int
) -> list[int]:
    """The padding at the end with which the wanted windows are exactly those that fit (negative: cut off)."""
    result = []
    for size, k, s, d, begin, end in zip(x.shape[2:], kernel, strides, dilations, begins, ends, strict=True):
        width = (k - 1) * d + 1
        room = size + begin + end - width
        count = (-(-room // s) if ceil else room // s) + 1
        if ceil and (count - 1) * s >= size + begin:
            count -= 1
        result.append((count - 1) * s + width - size - begin)
    return result


def _summed(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints) -> Tensor:
    """The sum over each window, as a convolution with ones."""
    count = len(kernel)
    if count > 3:
        raise ModelError(f"a pool over {count} axes is not known; expected 1 to 3.")
    flat = x.reshape(-1, 1, *x.shape[2:])
    ones = torch.ones(1, 1, *kernel, dtype=x.dtype, device=x.device)
    total = _CONVOLVE[count - 1](flat, ones, None, strides, 0, dilations)
    return total.reshape(*x.shape[:2], *total.shape[2:])
