"""Reductions: what is computed over an axis needs all of it, so the axis stays; other axes pass.

The statistics of a normalization that is written out (the RMS norms of language models) are the exception: as with layer
norms, `through_norms` lets the axis shrink, and the statistics change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..flow import Flow, axes
from .call import Call
from .norms import OVER


def sum(flow: Flow, call: Call) -> Any:  # named as the operator
    return _reduced(flow, call, call.axes(), bool(call.get("keepdim")))


mean = amax = amin = var = std = logsumexp = any = all = prod = argmax = argmin = var_mean = std_mean = sum
max = min = median = nansum = norm = linalg_vector_norm = count_nonzero = sum


def softmax(flow: Flow, call: Call) -> Any:
    """Of the shape of its input; every entry depends on the whole axis."""
    return call.each_result(flow.fix(call.input, [call.axis()], _why(call)))


log_softmax = cumsum = cumprod = sort = topk = argsort = logcumsumexp = cummax = cummin = softmax


def _reduced(flow: Flow, call: Call, summed: list[int], keep: bool) -> Any:
    values = list(call.values())
    if len(values) > 1:  # max(a, b) of two tensors
        return flow.combine(values)
    value = values[0]
    if call.of_norm and flow.through_norms:
        flow.inexact = True
        value = replace(value, factors=tuple(f for f in value.factors if not set(axes(f)) <= set(summed)))
    value = flow.fix(value, summed, OVER if call.of_norm else _why(call))
    rest = [axis for axis in range(len(value.shape)) if axis not in summed]

    def shrink(factor: Tensor) -> Tensor:
        return factor if keep else factor.permute([*rest, *summed]).reshape([factor.shape[a] for a in rest])

    shape = tuple(n if a in rest else 1 for a, n in enumerate(value.shape) if keep or a in rest)
    reduced = replace(
        value,
        shape=shape,
        factors=tuple(map(shrink, value.factors)),
    )
    return call.each_result(reduced)


def _why(call: Call) -> str:
    return f"{call.operator} runs over these channels"
