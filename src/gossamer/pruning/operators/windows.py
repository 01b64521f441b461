"""Windows: pooling, resizing and sampling work per channel; the axes of positions stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..flow import Flow
from .call import Call
from .parts import picked
from .products import MIXES


def _pool(positions: int) -> Any:
    def pool(flow: Flow, call: Call) -> Any:
        rank = len(call.input.shape)
        value = flow.fix(call.input, range(rank - positions, rank), MIXES)
        for other in list(call.values())[1:]:
            flow.stop(other, MIXES)
        return call.each_result(replace(value, shape=call.shape))

    return pool


max_pool1d = avg_pool1d = adaptive_avg_pool1d = adaptive_max_pool1d = _pool(1)
max_pool2d = avg_pool2d = adaptive_avg_pool2d = adaptive_max_pool2d = _pool(2)
max_pool3d = avg_pool3d = adaptive_avg_pool3d = adaptive_max_pool3d = _pool(3)
max_pool1d_with_indices = _pool(1)
max_pool2d_with_indices = _pool(2)
upsample_nearest1d = upsample_linear1d = _pool(1)
upsample_nearest2d = upsample_bilinear2d = upsample_bicubic2d = grid_sampler = grid_sampler_2d = _pool(2)
_upsample_bilinear2d_aa = _upsample_bicubic2d_aa = _upsample_nearest_exact2d = _pool(2)
upsample_nearest3d = upsample_trilinear3d = _pool(3)
reflection_pad1d = replication_pad1d = _pool(1)
reflection_pad2d = replication_pad2d = _pool(2)


def local_response_norm(flow: Flow, call: Call) -> Any:
    value = flow.fix(call.input, range(1, len(call.input.shape)), "neighbouring channels are mixed")
    return call.each_result(value)


def pixel_shuffle(flow: Flow, call: Call) -> Any:
    """r^2 channels make one channel of the output: [.., C r^2, H, W] -> [.., C, H r, W r]."""
    return _shuffled(flow, call, call["upscale_factor"] ** 2, gather=True)


def pixel_unshuffle(flow: Flow, call: Call) -> Any:
    """One channel makes r^2: [.., C, H r, W r] -> [.., C r^2, H, W]."""
    return _shuffled(flow, call, call["downscale_factor"] ** 2, gather=False)


def _shuffled(flow: Flow, call: Call, square: int, *, gather: bool) -> Any:
    value = call.input
    axis = len(value.shape) - 3
    value = flow.fix(value, [axis + 1, axis + 2], MIXES)
    factor = value.along(axis)
    if gather and factor.shape[axis] > 1:
        parts = factor.movedim(axis, 0).reshape(-1, square, *factor.shape[:axis])
        flow.labels.tie(parts, parts[:, :1])
    every = torch.arange(value.shape[axis])
    index = every[::square] if gather else every.repeat_interleave(square)
    return call.each_result(picked(value, axis, index, call.shape))
