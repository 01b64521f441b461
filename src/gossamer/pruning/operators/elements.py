"""Elements: operators that work element by element, and tensors made from nothing.

gate units   glu = first half * sigmoid(second half) of an axis: both halves shrink alike
prelu        one slope per channel goes with the channels
filled       zeros, ones and constants have labels of their own along each axis
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..flow import Flow, Value
from .call import Call, shapes
from .parts import split


def pointwise(flow: Flow, call: Call) -> Any:
    """Of all operators that torch calls pointwise."""
    value = flow.combine(list(call.values()))
    if shapes(call.result)[0] != value.shape:  # an operator in place on a wider tensor
        return call.each_result()
    return call.each_result(value)


clone = contiguous = dropout = feature_dropout = alpha_dropout = alias = detach = to = _to_copy = pointwise
lift_fresh_copy = type_as = masked_fill = where = copy = native_dropout = cast = pointwise
positive = relu6 = bernoulli = fake_quantize_per_tensor_affine = pointwise


def prelu(flow: Flow, call: Call) -> Value:
    x, weight = call["self"], call["weight"]
    more = [1] * max(len(x.shape) - 2, 0)
    if len(weight.shape) == 1:
        factors = tuple(f.reshape([*f.shape, *more]) for f in weight.factors)
        weight = replace(weight, shape=(*weight.shape, *more), factors=factors)
    return flow.combine([x, weight])


def glu(flow: Flow, call: Call) -> Value:
    halves = Call("split", {"input": call.input, "dim": call["dim"]}, [call.result, call.result])
    return flow.combine(split(flow, halves))


def zeros(flow: Flow, call: Call) -> Value:
    return flow.constant(Value(call.shape), range(len(call.shape)))


ones = full = empty = new_zeros = new_ones = new_full = new_empty = zeros_like = ones_like = full_like = zeros
empty_like = scalar_tensor = fill = zeros
