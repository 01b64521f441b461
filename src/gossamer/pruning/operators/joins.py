"""Joins: tensors put side by side along an axis, or written into a part of another.

Along the joined axis labels follow one another; along the others all parts shrink together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..flow import Flow, Value, axes, each, squeezed
from .call import Call
from .parts import picked


def cat(flow: Flow, call: Call) -> Value:
    """Along the joined axis labels follow one another; along the others all parts shrink together."""
    parts = [value for value in call["tensors"] if 0 not in value.shape] or list(call["tensors"])
    axis = int(call.get("dim", 0)) % len(parts[0].shape)
    return _joined(flow, parts, axis, call.shape)


concat = concatenate = cat


def stack(flow: Flow, call: Call) -> Value:
    axis = int(call.get("dim", 0)) % len(call.shape)
    parts = [
        each(
            value,
            lambda f: f.unsqueeze(axis),
            shape=(*value.shape[:axis], 1, *value.shape[axis:]),
        )
        for value in call["tensors"]
    ]
    return _joined(flow, parts, axis, call.shape)


def select_scatter(flow: Flow, call: Call) -> Value:
    axis, at = call.axis(), int(call["index"]) % call["self"].shape[call.axis()]
    source = replace(
        call["src"],
        shape=(*call["src"].shape[:axis], 1, *call["src"].shape[axis:]),
        factors=tuple(f.unsqueeze(axis) for f in call["src"].factors),
    )
    return _written(flow, call["self"], source, axis, at, 1)


def slice_scatter(flow: Flow, call: Call) -> Value:
    value, axis = call["self"], call.axis()
    start, step = int(call.get("start") or 0), int(call["step"])
    start += value.shape[axis] if start < 0 else 0
    return _written(flow, value, call["src"], axis, start, step)


def _written(flow: Flow, value: Value, source: Value, axis: int, start: int, step: int) -> Value:
    """A tensor in which the entries start, start + step, ... of an axis are those of `source`."""
    whole = value.shape[axis]
    order = torch.arange(whole)
    written = order[start::step][: source.shape[axis]]
    rest = order[~torch.isin(order, written)]
    old = picked(value, axis, rest, (*value.shape[:axis], len(rest), *value.shape[axis + 1 :]))
    joined = _joined(flow, [old, source] if len(rest) else [source], axis, value.shape)
    return picked(joined, axis, torch.cat([rest, written]).argsort(), value.shape)


def _joined(flow: Flow, parts: Sequence[Value], axis: int, shape: tuple[int, ...]) -> Value:
    parts = [flow.settle(part) for part in parts]
    spanned = {a for p in parts for f in p.factors if f.shape[axis] > 1 for a in axes(f) if a != axis}
    thin = [  # what does not depend on the joined axis shrinks in all parts alike
        Value(
            tuple(1 if a == axis or a in spanned else n for a, n in enumerate(part.shape)),
            tuple(f for f in part.factors if axes(f) and not set(axes(f)) & {axis, *spanned}),
            part.origin,
        )
        for part in parts
    ]
    common = flow.combine(thin, "joined to parts that cannot shrink")
    parts = [flow.settle(part) for part in parts]
    columns = []
    for part in parts:
        held = [f for f in part.factors if set(axes(f)) & spanned]
        lone = [f for f in part.factors if (f.shape[axis] > 1 or not axes(f)) and not set(axes(f)) & spanned]
        if held and lone:
            flow.stop(replace(part, factors=tuple(lone)), "joined to parts that cannot shrink")
        factor = (held or lone or [torch.zeros([1] * len(shape), dtype=torch.int64)])[0]
        columns.append(
            factor.expand([n if a == axis or a in spanned else 1 for a, n in enumerate(part.shape)])
        )
    joined = squeezed(torch.cat(columns, axis))
    factors = [f for f in common.factors if not set(axes(f)) & set(axes(joined))]
    factors += [joined] if bool(joined.any()) else []
    return flow.disjoint(Value(shape, tuple(factors), common.origin))
