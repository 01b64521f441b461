"""Moves: reshaping, permuting and repeating do to the labels what they do to the data.

A factor has size 1 along axes it does not depend on, so a move touches few numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..flow import Flow, Value, each, lifted, squeezed
from .call import Call


def view(flow: Flow, call: Call) -> Value:
    return reshaped(flow, call.input, call.shape)


reshape = flatten = unflatten = _unsafe_view = view_as = reshape_as = view


def permute(flow: Flow, call: Call) -> Value:
    return _permuted(call.input, call.axes("dims"))


def transpose(flow: Flow, call: Call) -> Value:
    order = list(range(len(call.input.shape)))
    a, b = call.axis("dim0"), call.axis("dim1")
    order[a], order[b] = b, a
    return _permuted(call.input, order)


swapaxes = transpose


def movedim(flow: Flow, call: Call) -> Value:
    source, target = call.axes("source"), call.axes("destination")
    rest = iter(axis for axis in range(len(call.input.shape)) if axis not in source)
    places = dict(zip(target, source, strict=True))
    return _permuted(
        call.input, [places[a] if a in places else next(rest) for a in range(len(call.input.shape))]
    )


def t(flow: Flow, call: Call) -> Value:
    return _permuted(call.input, list(range(len(call.input.shape)))[::-1])


numpy_T = t


def unsqueeze(flow: Flow, call: Call) -> Value:
    axis = int(call["dim"]) % (len(call.input.shape) + 1)
    return each(call.input, lambda f: f.unsqueeze(axis), shape=call.shape)


def squeeze(flow: Flow, call: Call) -> Value:
    return reshaped(flow, call.input, call.shape)


def expand(flow: Flow, call: Call) -> Value:
    """New or repeated axes have labels of their own: all their entries are equal."""
    value = lifted(call.input, len(call.shape))
    new = {a for a, (old, n) in enumerate(zip(value.shape, call.shape, strict=True)) if old == 1 and n > 1}
    return flow.constant(replace(value, shape=call.shape), new)


expand_as = broadcast_to = expand


def repeat(flow: Flow, call: Call) -> Value:
    value = lifted(call.input, len(call.shape))
    times = [n // old for n, old in zip(call.shape, value.shape, strict=True)]
    new = {a for a, (old, n) in enumerate(zip(value.shape, call.shape, strict=True)) if old == 1 and n > 1}
    repeated = each(
        value,
        lambda f: f.repeat([n if f.shape[a] > 1 else 1 for a, n in enumerate(times)]),
        shape=call.shape,
    )
    return flow.constant(repeated, new)


tile = repeat


def repeat_interleave(flow: Flow, call: Call) -> Value:
    value = call.input
    times, axis = call.get("repeats"), call.get("dim")
    if not isinstance(times, int) or axis is None:
        flow.stop(value, "repeated by a tensor of counts")
        return Value(call.shape)
    axis %= len(value.shape)
    repeated = each(
        value, lambda f: f.repeat_interleave(times, axis) if f.shape[axis] > 1 else f, shape=call.shape
    )
    return flow.constant(repeated, [axis] if value.shape[axis] == 1 else [])


def _permuted(value: Value, order: Sequence[int]) -> Value:
    return each(
        value,
        lambda f: f.permute(list(order)),
        shape=tuple(value.shape[a] for a in order),
    )


def reshaped(flow: Flow, value: Value, shape: tuple[int, ...]) -> Value:
    """Axes fall into blocks of equal products; a factor is expanded only inside the blocks it varies in."""
    blocks = _blocks(value.shape, shape)

    def move(factor: Tensor) -> Tensor:
        inner: list[int] = []
        outer: list[int] = []
        for old, new in blocks:
            varies = any(factor.shape[axis] > 1 for axis in old)
            inner += [value.shape[axis] if varies else 1 for axis in old]
            outer += [shape[axis] if varies else 1 for axis in new]
        return squeezed(factor.expand(inner).reshape(outer))

    return flow.disjoint(each(value, move, shape=shape))


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[range, range]]:
    """Runs of old and new axes with equal products, from the front."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, second = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
            elif j < len(new):
                right, j = right * new[j], j + 1
            else:
                break
        blocks.append((range(first, i), range(second, j)))
    return blocks
