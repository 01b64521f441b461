"""Products: linear layers, convolutions, matmul, einsum and attention, all as sums of products over named axes.

linear          ..i, oi -> ..o           weight columns i read, rows o make
convolution     n i s, o i k -> n o s    kernel and positions are fixed axes; transposed: weight [i, o, k]
depthwise       channel c of the input is channels c m .. c m + m - 1 of the output: one label
grouped         a group of inputs and its outputs are one unit
attention       heads x dims: whatever shares a head goes with it, since scores are summed over dims
"""

from __future__ import annotations

import string
from dataclasses import replace

from ..flow import Flow, Value, axes
from ..group import IN, OUT
from ..labels import MADE
from .call import Call

LETTERS = string.ascii_letters
MIXES = "neighbouring positions are mixed along this axis"


def linear(flow: Flow, call: Call) -> Value:
    x, weight, bias = call["input"], call["weight"], call.get("bias")
    lead = LETTERS[: len(x.shape) - 1]
    terms = (lead + "I", "OI"[-len(weight.shape) :], lead + ("O" if len(weight.shape) > 1 else ""))
    return _plus(flow, flow.contract(x, weight, terms), bias)


def addmm(flow: Flow, call: Call) -> Value:
    return _plus(flow, flow.contract(call["mat1"], call["mat2"], ("ab", "bc", "ac")), call["self"])


def baddbmm(flow: Flow, call: Call) -> Value:
    return _plus(flow, flow.contract(call["batch1"], call["batch2"], ("nab", "nbc", "nac")), call["self"])


def matmul(flow: Flow, call: Call) -> Value:
    left, right = (call.get("self") or call["input"]), (call.get("other") or call.get("mat2") or call["vec"])
    a, b = len(left.shape), len(right.shape)
    lead = LETTERS[: max(a, b, 2) - 2]
    one = (lead[len(lead) - (a - 2) :] + "I" if a > 1 else "") + "K"
    two = (lead[len(lead) - (b - 2) :] + "KO") if b > 1 else "K"
    out = lead + ("I" if a > 1 else "") + ("O" if b > 1 else "")
    return flow.contract(left, right, (one, two, out))


mm = bmm = mv = dot = matmul


def einsum(flow: Flow, call: Call) -> Value:
    """Any number of operands, two at a time from the left; an ellipsis stands for the leading axes of its operand."""
    operands: list[Value] = list(call["tensors"])
    parts, out = _terms(call["equation"], operands)
    if any(len(set(part)) < len(part) for part in parts):
        for operand in operands:
            flow.stop(operand, "an einsum takes the diagonal of two axes")
        return Value(call.shape)
    value, term = operands[0], parts[0]
    for at in range(1, len(operands)):
        later = out + "".join(parts[at + 1 :])
        together = "".join(dict.fromkeys(letter for letter in term + parts[at] if letter in later))
        together = out if at == len(operands) - 1 else together
        value = flow.contract(value, operands[at], (term, parts[at], together))
        term = together
    if len(operands) > 1:
        return value
    summed = [at for at, letter in enumerate(term) if letter not in out]
    fixed = flow.fix(value, summed, "an einsum sums over these channels")
    order = [*(term.index(letter) for letter in out), *summed]
    factors = tuple(f.permute(order).reshape([f.shape[p] for p in order[: len(out)]]) for f in fixed.factors)
    return replace(fixed, shape=call.shape, factors=factors)


def _terms(equation: str, operands: list[Value]) -> tuple[list[str], str]:
    """One letter per axis of each operand, and of the result; the ellipsis becomes letters of its own."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    free = [letter for letter in LETTERS if letter not in equation]
    sizes = [len(v.shape) - len(p) + 3 if "..." in p else 0 for p, v in zip(parts, operands, strict=True)]
    dots = "".join(free[: max(sizes)])
    if not arrow:  # the ellipsis, then every letter that stands once, in order
        out = "..." * ("..." in left) + "".join(
            sorted(c for c in left if c in LETTERS and left.count(c) == 1)
        )
    named = [p.replace("...", dots[len(dots) - n :]) for p, n in zip(parts, sizes, strict=True)]
    return named, out.replace("...", dots)


def scaled_dot_product_attention(flow: Flow, call: Call) -> Value:
    query, key, value, mask = call["query"], call["key"], call["value"], call.get("attn_mask")
    heads = len(query.shape) - 3
    if heads >= 0 and call.get("enable_gqa"):
        key, value = (_repeated(flow, part, heads, query.shape[heads]) for part in (key, value))
    lead = LETTERS[: len(query.shape) - 2]
    scores = flow.contract(query, key, (lead + "LD", lead + "SD", lead + "LS"))
    if mask is not None:
        scores = flow.combine([scores, mask])
    scores = flow.fix(scores, [len(scores.shape) - 1], "a softmax runs over this axis")
    return flow.contract(scores, value, (lead + "LS", lead + "SE", lead + "LE"))


def conv2d(flow: Flow, call: Call) -> Value:
    return _convolution(flow, call, transposed=False)


conv1d = conv3d = conv2d


def conv_transpose2d(flow: Flow, call: Call) -> Value:
    return _convolution(flow, call, transposed=True)


conv_transpose1d = conv_transpose3d = conv_transpose2d


def convolution(flow: Flow, call: Call) -> Value:
    return _convolution(flow, call, transposed=bool(call["transposed"]))


def embedding(flow: Flow, call: Call) -> Value:
    weight, indices = call["weight"], call["indices"]
    flow.play(weight, 1, OUT)
    rows = flow.fix(weight, [0], "")
    flow.stop(indices, "channels are used as indices")
    rank = len(indices.shape)
    factors = tuple(f.reshape([1] * rank + [-1]) for f in rows.factors)
    return Value(call.shape, factors)


def _plus(flow: Flow, value: Value, bias: Value | None) -> Value:
    return value if bias is None else flow.combine([value, bias])


def _repeated(flow: Flow, value: Value, axis: int, size: int) -> Value:
    """Each head of keys or values serves several heads of queries."""
    times = size // value.shape[axis]
    factors = tuple(f.repeat_interleave(times, axis) if f.shape[axis] > 1 else f for f in value.factors)
    shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
    repeated = replace(value, shape=shape, factors=factors)
    return flow.constant(repeated, [axis] if value.shape[axis] == 1 else [])


def _convolution(flow: Flow, call: Call, *, transposed: bool) -> Value:
    x, weight, bias, groups = call["input"], call["weight"], call.get("bias"), call["groups"]
    channel = len(x.shape) - len(weight.shape) + 1
    x = flow.fix(x, range(channel + 1, len(x.shape)), MIXES)
    matrix = _matrix(flow, weight)
    if groups > 1:
        flat = _grouped(flow, x, matrix, groups, channel, call.shape[channel], transposed)
    else:
        lead = LETTERS[: len(x.shape)]
        read = lead[channel]
        flat = flow.contract(
            x, matrix, (lead, read + "O" if transposed else "O" + read, lead.replace(read, "O"))
        )
    value = replace(flat, shape=call.shape)
    return _plus(flow, value, None if bias is None else _lined(bias, len(call.shape) - channel - 1))


def _matrix(flow: Flow, weight: Value) -> Value:
    """The weight without the axes of its kernel, which stay."""
    if any(axis > 1 for factor in weight.factors for axis in axes(factor)):
        flow.fix(replace(weight, factors=weight.factors), range(2, len(weight.shape)), "")
    kept = tuple(f.reshape(f.shape[:2]) for f in weight.factors if all(axis < 2 for axis in axes(f)))
    return replace(weight, shape=weight.shape[:2], factors=kept)


def _grouped(
    flow: Flow, x: Value, weight: Value, groups: int, channel: int, made: int, transposed: bool
) -> Value:
    """Whole groups are units; with one channel per group (depthwise) these are the channels of the input."""
    size = x.shape[channel]
    flow.fix(weight, [1], "")  # channels per group
    x = flow.fix(x, range(channel), "") if len(axes(x.along(channel))) > 1 else flow.settle(x)
    rows = weight.along(0).flatten().expand(weight.shape[0])
    if size > groups or made > groups:
        flow.play(weight, 0, IN if transposed else OUT)
    flow.labels.mark(rows[rows > 0], MADE)
    read = x.along(channel).flatten().expand(size).reshape(groups, -1)
    rows = rows.reshape(groups, -1)
    flow.labels.tie(read, read[:, :1])
    flow.labels.tie(rows, rows[:, :1])
    flow.labels.tie(rows[:, :1], read[:, :1])
    flow.site(0, rows)
    labels = rows[:, :1].expand(groups, made // groups) if transposed else rows
    shape = [1] * len(x.shape)
    shape[channel] = made
    rest = tuple(f for f in x.factors if f.shape[channel] == 1)
    return Value((*x.shape[:channel], made, *x.shape[channel + 1 :]), (labels.reshape(shape), *rest))


def _lined(bias: Value, spatial: int) -> Value:
    """A bias per channel, with axes of size 1 for the positions."""
    factors = tuple(f.reshape([*f.shape, *[1] * spatial]) for f in bias.factors)
    return replace(bias, shape=bias.shape + (1,) * spatial, factors=factors)
