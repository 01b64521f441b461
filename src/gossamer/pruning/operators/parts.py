"""Parts: slicing, splitting, indexing and padding an axis do to the labels what they do to the data.

Equal parts (chunk, split, the two halves of a slice) are recorded as a grid of parts x channels: the code that cuts them
expects equal parts again. An axis that tensors of indices pick from stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..flow import Flow, Value, each
from .call import Call, shapes


def slice(flow: Flow, call: Call) -> Value:  # named as the operator
    value, axis = call.input, call.axis()
    start, step, size = int(call["start"] or 0), int(call["step"]), value.shape[axis]
    start = min(max(start + size if start < 0 else start, 0), size)
    if size == 2 * call.shape[axis] and step == 1 and start in (0, size // 2):
        _parts(flow, value, axis, 2)
    index = torch.arange(start, start + call.shape[axis] * step, step)
    return picked(value, axis, index, call.shape)


def narrow(flow: Flow, call: Call) -> Value:
    axis, start = call.axis(), int(call["start"])
    index = torch.arange(start, start + int(call["length"])) % max(call.input.shape[axis], 1)
    return picked(call.input, axis, index, call.shape)


def select(flow: Flow, call: Call) -> Value:
    value, axis, index = call.input, call.axis(), int(call["index"])
    return _selected(value, axis, index % value.shape[axis], call.shape)


def unbind(flow: Flow, call: Call) -> Any:
    value, axis = call.input, call.axis()
    return [_selected(value, axis, at, shape) for at, shape in enumerate(shapes(call.result))]


def split(flow: Flow, call: Call) -> Any:
    value, axis = call.input, call.axis()
    found = shapes(call.result)
    sizes = [shape[axis] for shape in found]
    if len(set(sizes)) == 1 and len(sizes) > 1 and sizes[0] > 1:
        _parts(flow, value, axis, len(sizes))
    factor = value.along(axis)
    if factor.shape[axis] > 1:
        flow.site(axis, *torch.split(factor, sizes, axis))
    starts = [int(n) for n in torch.tensor([0, *sizes]).cumsum(0)]
    return [
        picked(value, axis, torch.arange(start, start + size), shape)
        for start, size, shape in zip(starts, sizes, found, strict=False)
    ]


chunk = split_with_sizes = tensor_split = unsafe_chunk = unsafe_split = split


def flip(flow: Flow, call: Call) -> Value:
    flipped = call.axes("dims")
    return each(call.input, lambda f: f.flip([a for a in flipped if f.shape[a] > 1]))


def roll(flow: Flow, call: Call) -> Value:
    shifts, over = call["shifts"], call.axes("dims")

    def move(factor: Tensor) -> Tensor:
        for shift, axis in zip(shifts, over, strict=True):
            factor = factor.roll(shift, axis) if factor.shape[axis] > 1 else factor
        return factor

    return each(call.input, move)


def pad(flow: Flow, call: Call) -> Value:
    """What is added stays; constant padding of an axis that cannot shrink is fixed as before."""
    value, amounts = call.input, list(call["pad"])
    rank = len(value.shape)
    padded = {rank - 1 - at // 2 for at, n in enumerate(amounts) if n}
    if call.get("mode", "constant") != "constant":
        value = flow.fix(value, padded, "padded with its own values")
        return replace(value, shape=call.shape)

    def move(factor: Tensor) -> Tensor:
        for at in range(len(amounts) // 2):
            axis = rank - 1 - at
            if factor.shape[axis] > 1 and (amounts[2 * at] or amounts[2 * at + 1]):
                factor = _padded(factor, axis, amounts[2 * at], amounts[2 * at + 1])
        return factor

    return each(value, move, shape=call.shape)


constant_pad_nd = pad


def index_select(flow: Flow, call: Call) -> Value:
    return replace(flow.fix(call["self"], [call.axis()], "channels are picked by index"), shape=call.shape)


def gather(flow: Flow, call: Call) -> Value:
    value = flow.fix(call["self"], range(len(call["self"].shape)), "channels are picked by index")
    flow.stop(call["index"], "channels are used as indices")
    return replace(value, shape=call.shape)


def index(flow: Flow, call: Call) -> Value:
    """Advanced indexing: the indexed axes stay, the others pass; axes of the indices stand first or in their place."""
    value, indices = call["self"], list(call["indices"])
    indices += [None] * (len(value.shape) - len(indices))
    used = [axis for axis, at in enumerate(indices) if at is not None]
    for at in indices:
        if at is not None:
            flow.stop(at, "channels are used as indices")
    if any(len(indices[axis].shape) == 0 for axis in used) and len(used) == len(indices):
        flow.stop(value, "channels are picked by index")
        return Value(call.shape)
    value = flow.fix(value, used, "channels are picked by index")
    added = len(call.shape) - (len(value.shape) - len(used))
    together = used == list(range(used[0], used[-1] + 1)) if used else True
    before = [a for a in range(len(value.shape)) if a not in used and together and a < used[0]]
    after = [a for a in range(len(value.shape)) if a not in used and a not in before]

    def move(factor: Tensor) -> Tensor:
        ordered = factor.permute([*before, *after, *used])
        sizes = [*(factor.shape[a] for a in before), *[1] * added, *(factor.shape[a] for a in after)]
        return ordered.reshape(sizes)

    return each(value, move, shape=call.shape)


def channel_shuffle(flow: Flow, call: Call) -> Value:
    value, groups = call.input, call["groups"]
    _parts(flow, value, 1, groups)
    order = torch.arange(value.shape[1]).reshape(groups, -1).t().flatten()
    return picked(value, 1, order, call.shape)


native_channel_shuffle = channel_shuffle


def picked(value: Value, axis: int, index: Tensor, shape: tuple[int, ...]) -> Value:
    """The entries `index` of an axis."""
    return each(value, lambda f: f.index_select(axis, index) if f.shape[axis] > 1 else f, shape=shape)


def _selected(value: Value, axis: int, at: int, shape: tuple[int, ...]) -> Value:
    return each(value, lambda f: f.select(axis, at if f.shape[axis] > 1 else 0), shape=shape)


def _parts(flow: Flow, value: Value, axis: int, count: int) -> None:
    factor = value.along(axis)
    if factor.shape[axis] > 1:
        lines = factor.movedim(axis, 0)
        flow.grids.append(lines.reshape(count, -1, *lines.shape[1:]))


def _padded(factor: Tensor, axis: int, before: int, after: int) -> Tensor:
    if before < 0 or after < 0:
        size = factor.shape[axis]
        cut = factor.narrow(axis, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        return _padded(cut, axis, max(before, 0), max(after, 0))
    sizes = list(factor.shape)
    zeros = []
    for n in (before, after):
        sizes[axis] = n
        zeros.append(torch.zeros(sizes, dtype=torch.int64))
    return torch.cat([zeros[0], factor, zeros[1]], axis)
