"""Norms: scale and shift per channel go with the channels; statistics over channels are a wall.

batch and instance norm   one label per channel
group norm                a group is one unit; the number of groups shrinks with it
layer and RMS norm        the normalized axes stay, unless through_norms: then they may shrink, and the statistics change
                          (written out as mean, rsqrt and products: see reductions)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..flow import Flow, Value, axes
from .call import Call

OVER = "a normalization runs over these channels, and its statistics would change"


def batch_norm(flow: Flow, call: Call) -> Value:
    x = call["input"]
    names = ("weight", "bias", "running_mean", "running_var")
    found = [call.get(name) for name in names]
    if x.along(1).shape[1] > 1:
        flow.site(1, x.along(1))
    return flow.combine([x, *(_at_channels(v, x) for v in found if v is not None)])


instance_norm = batch_norm


def _native_batch_norm_legit_no_training(flow: Flow, call: Call) -> Any:
    return call.each_result(batch_norm(flow, call))


def group_norm(flow: Flow, call: Call) -> Value:
    x, groups = call["input"], call["num_groups"]
    x = flow.fix(x, range(2, len(x.shape)), OVER)
    factor = x.along(1)
    if len(axes(factor)) == 1:
        labels = factor.flatten().reshape(groups, -1)
        flow.labels.tie(labels, labels[:, :1])
        flow.site(0, labels)
        flow.site(1, factor)
    else:
        x = flow.fix(x, [1], OVER)
    found = [call.get(name) for name in ("weight", "bias")]
    return flow.combine([x, *(_at_channels(v, x) for v in found if v is not None)])


def layer_norm(flow: Flow, call: Call) -> Value:
    x = call["input"]
    found = [call.get(name) for name in ("weight", "bias")]
    if flow.through_norms:
        flow.inexact = True
    else:
        x = flow.fix(x, range(len(x.shape) - len(call["normalized_shape"]), len(x.shape)), OVER)
    return flow.combine([x, *(v for v in found if v is not None)])


rms_norm = layer_norm


def _weight_norm(flow: Flow, call: Call) -> Value:
    """g v / |v|, the norm over all axes but one: only that one may shrink."""
    v, g = call["v"], call["g"]
    others = [axis for axis in range(len(v.shape)) if axis != call.axis(of=v)]
    return flow.combine([flow.fix(v, others, OVER), g])


_weight_norm_interface = _weight_norm


def _at_channels(value: Value, x: Value) -> Value:
    """A value per channel, lined up with axis 1 of the input."""
    more = [1] * (len(x.shape) - 2)
    return replace(
        value,
        shape=(*value.shape, *more),
        factors=tuple(f.reshape([*f.shape, *more]) for f in value.factors),
    )
