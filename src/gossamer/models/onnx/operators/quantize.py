"""QuantizeLinear and DequantizeLinear, where they are not a pair (see `rounding`).

    q = clip(round(x / scale) + zero_point)        x = (q - zero_point) * scale

scale and zero point are one number, one for each entry along `axis`, or one for each block of `block_size` entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import ModelError
from ..dtypes import dtype_of


def QuantizeLinear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    kind = (
        zero_point.dtype
        if zero_point is not None
        else dtype_of(output_dtype)
        if output_dtype
        else torch.uint8
    )
    if kind.is_floating_point:
        raise ModelError(f"QuantizeLinear: {kind} is not known; expected integers.")
    limits = torch.iinfo(kind)
    codes = torch.round(x / _spread(scale, x, axis, block_size))
    if zero_point is not None:
        codes = codes + _spread(zero_point, x, axis, block_size)
    return torch.clamp(codes, limits.min, limits.max).to(kind)


def DequantizeLinear(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    values = codes.to(scale.dtype)
    if zero_point is not None:
        values = values - _spread(zero_point, codes, axis, block_size).to(scale.dtype)
    return values * _spread(scale, codes, axis, block_size)


def _spread(value: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A scale or zero point in a shape that fits `x`."""
    if value.numel() == 1 and value.ndim <= 1:
        return value.reshape(())
    if block_size:
        return value.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    return value.reshape([-1 if at == axis % x.ndim else 1 for at in range(x.ndim)])
