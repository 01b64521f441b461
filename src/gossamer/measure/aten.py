"""aten: what each operator of torch costs, from the shapes of its arguments.

A rule takes a `Call` and returns its Cost without traffic. The name of an operator is that of its schema without
namespace, overload and the underscore of the in-place form: `add_.Tensor` and `add.out` are "add".

Here are operators with multiply-accumulates, and those whose count depends on more than one shape; the rest are in
the tables of `elementwise`. An operator in neither has no rule, and the report lists it as not counted.
Source: the definitions of the operators; the weights of the kinds are those of measure/formulas.py and cost.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from ..cost import Cost
from . import formulas
from .elementwise import ELEMENTWISE, MOVES, REDUCTIONS


@dataclass(frozen=True)
class Call:
    """One call of an operator: its arguments by the names of the schema, and its outputs."""

    arguments: dict[str, Any]
    outputs: tuple[Tensor, ...]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor argument."""
        return tuple(self.arguments[name].shape)

    @property
    def output(self) -> tuple[int, ...]:
        return tuple(self.outputs[0].shape)

    @property
    def has_bias(self) -> bool:
        return self.arguments.get("bias") is not None


Rule = Callable[[Call], Cost]


def _convolution(call: Call) -> Cost:
    if call.arguments.get("transposed"):
        macs = formulas.transposed_convolution(call.shape("weight"), call.shape("input"))
    else:
        macs = formulas.convolution(call.shape("weight"), call.output)
    return Cost.of_macs(macs, bias_adds=prod(call.output) if call.has_bias else 0)


def _product(left: str, right: str, *, added: str | None = None) -> Rule:
    """A matrix product of two arguments, with an argument that is added to the result or none."""

    def rule(call: Call) -> Cost:
        macs = formulas.matmul(call.shape(left), call.shape(right), call.output)
        adds = added is not None and call.arguments.get("beta", 1) != 0
        return Cost.of_macs(macs, bias_adds=prod(call.output) if adds else 0)

    return rule


def _linear(call: Call) -> Cost:
    macs = prod(call.output) * call.shape("weight")[-1]
    return Cost.of_macs(macs, bias_adds=prod(call.output) if call.has_bias else 0)


def _batched_sum(call: Call) -> Cost:
    return Cost.of_macs(prod(call.shape("batch1")) * call.shape("batch2")[-1], bias_adds=prod(call.output))


def _grouped_product(call: Call) -> Cost:
    """Rows [T, K] in groups, each times its own matrix of [E, K, N]; or the two ragged along K, to [E, M, N]."""
    left, right = call.shape("self"), call.shape("mat2")
    ragged = len(left) == len(right) == 2
    return Cost.of_macs(prod(left) * right[-1] if ragged else prod(call.output) * left[-1])


def _attention(call: Call) -> Cost:
    scores = prod(call.shape("query")[:-1]) * call.shape("key")[-2]
    macs = formulas.attention(call.shape("query"), call.shape("key"), call.shape("value"))
    return replace(Cost.of_macs(macs), other_ops={"transcendental": scores})


def _onednn_recurrent(call: Call) -> Cost:
    """One layer in one direction, weights [gates h, i] and [gates h, h]; oneDNN's form of nn.LSTM."""
    input, hidden = call.shape("input"), call.arguments["hidden_size"]
    gates, steps = call.shape("weight0")[0] // hidden, prod(input[:-1])
    macs = formulas.recurrent(gates=gates, input=input[-1], hidden=hidden, steps=steps)
    cell = Cost.of_elements(steps * hidden, transcendental=5, multiply=3, add=1)
    return cell + Cost.of_macs(
        macs, bias_adds=2 * gates * hidden * steps if call.arguments["has_biases"] else 0
    )


def _trilinear(call: Call) -> Cost:
    """nn.Bilinear: every pair of inputs times a weight, [N, I], [O, I, J], [N, J]."""
    (outs, first, second), batch = call.shape("i2"), prod(call.shape("i1")[:-1])
    return Cost.of_macs(batch * outs * first * second)


def _interpolation(mode: str, axes: int) -> Rule:
    return lambda call: Cost.of_macs(formulas.resize(call.output, axes=axes, mode=mode))


def _grid_sampler(call: Call) -> Cost:
    axes = len(call.output) - 2
    mode = ("linear", "nearest", "cubic")[call.arguments.get("interpolation_mode", 0)]
    return Cost.of_macs(formulas.resize(call.output, axes=axes, mode=mode))


def _norm(*, affine: str = "weight") -> Rule:
    """Mean and variance over a group, then normalize: 7 operations per element, fewer without scale and shift."""

    def rule(call: Call) -> Cost:
        scaled = 1 if call.arguments.get(affine) is not None else 0
        count = prod(call.shape("input"))
        groups = prod(call.outputs[-1].shape) if len(call.outputs) > 1 else 0
        cost = Cost.of_elements(count, add=3 + scaled, multiply=2 + scaled)
        return cost + Cost.of_elements(groups, transcendental=1)

    return rule


def _rms_norm(call: Call) -> Cost:
    scaled = 1 if call.arguments.get("weight") is not None else 0
    return Cost.of_elements(prod(call.shape("input")), add=1, multiply=2 + scaled)


def _batch_norm(call: Call) -> Cost:
    """A scale and a shift per channel; with the statistics of the batch itself it is a norm like the others."""
    if call.arguments.get("training"):
        return _norm()(call)
    return Cost.of_elements(prod(call.output), multiply=1, add=1)


def _weight_norm(call: Call) -> Cost:
    """w = g v / |v|: squares and their sum, a root for each norm, and the scaling."""
    norms = call.outputs[1].numel()
    scaled = Cost.of_elements(prod(call.output), add=1, multiply=2)
    return scaled + Cost.of_elements(norms, transcendental=1, multiply=1)


def _affine_grid(call: Call) -> Cost:
    """Each coordinate of the grid is a row of theta [N, axes, axes + 1] times a place in the picture."""
    return Cost.of_macs(prod(call.output) * call.shape("theta")[-1])


def _pool(kind: str, *, less: int = 0) -> Rule:
    """Taps of the window per output: comparisons of a maximum (K - 1), additions of a mean (K)."""

    def rule(call: Call) -> Cost:
        window = call.arguments["kernel_size"]
        taps = prod(_spread(window, _axes(call)))
        return Cost.of_elements(prod(call.output), **{kind: taps - less})

    return rule


def _adaptive_pool(kind: str) -> Rule:
    return lambda call: Cost.of_elements(prod(call.shape("self")), **{kind: 1})


def _distances(call: Call) -> Cost:
    """Differences, squares and sums of every pair of rows: adds 2 and multiplies 1 per pair and feature."""
    features = call.shape("x1")[-1]
    return Cost.of_elements(prod(call.output), add=2 * features, multiply=features, transcendental=1)


def _axes(call: Call) -> int:
    window = call.arguments["kernel_size"]
    return len(window) if isinstance(window, Sequence) and len(window) > 1 else len(call.output) - 2


def _spread(window: Any, axes: int) -> Sequence[int]:
    values = [window] if isinstance(window, int) else list(window)
    return values if len(values) > 1 else values * axes


RULES: dict[str, Rule] = {
    **dict.fromkeys(("convolution", "convolution_overrideable", "mkldnn_convolution"), _convolution),
    **dict.fromkeys(("conv_depthwise3d", "_conv_depthwise2d"), _convolution),
    **dict.fromkeys(("thnn_conv2d", "_slow_conv2d_forward", "slow_conv3d_forward"), _convolution),
    "linear": _linear,
    "mkldnn_linear": _linear,
    "mm": _product("self", "mat2"),
    "_int_mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "mv": _product("self", "vec"),
    "dot": lambda call: Cost.of_macs(call.shape("self")[0]),
    "vdot": lambda call: Cost.of_macs(call.shape("self")[0]),
    "addmm": _product("mat1", "mat2", added="self"),
    "_addmm_activation": _product("mat1", "mat2", added="self"),
    "baddbmm": _product("batch1", "batch2", added="self"),
    "addmv": _product("mat", "vec", added="self"),
    "addbmm": _batched_sum,
    "_grouped_mm": _grouped_product,
    "addr": lambda call: Cost.of_macs(prod(call.output)),
    "_trilinear": _trilinear,
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    "mkldnn_rnn_layer": _onednn_recurrent,
    "upsample_linear1d": _interpolation("linear", 1),
    "upsample_bilinear2d": _interpolation("linear", 2),
    "_upsample_bilinear2d_aa": _interpolation("linear", 2),
    "upsample_trilinear3d": _interpolation("linear", 3),
    "upsample_bicubic2d": _interpolation("cubic", 2),
    "_upsample_bicubic2d_aa": _interpolation("cubic", 2),
    "affine_grid_generator": _affine_grid,
    "grid_sampler_2d": _grid_sampler,
    "grid_sampler_3d": _grid_sampler,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), _batch_norm
    ),
    "_weight_norm_interface": _weight_norm,
    "native_layer_norm": _norm(),
    "native_group_norm": _norm(),
    "_fused_rms_norm": _rms_norm,
    "max_pool2d_with_indices": _pool("compare", less=1),
    "max_pool3d_with_indices": _pool("compare", less=1),
    "avg_pool2d": _pool("add"),
    "avg_pool3d": _pool("add"),
    "_adaptive_avg_pool2d": _adaptive_pool("add"),
    "_adaptive_avg_pool3d": _adaptive_pool("add"),
    "fractional_max_pool2d": _pool("compare", less=1),
    "fractional_max_pool3d": _pool("compare", less=1),
    "adaptive_max_pool2d": _adaptive_pool("compare"),
    "adaptive_max_pool3d": _adaptive_pool("compare"),
    "_cdist_forward": _distances,
    "_euclidean_dist": _distances,
    "_embedding_bag": lambda call: Cost.of_elements(
        prod(call.shape("indices")) * call.shape("weight")[-1], add=1
    ),
    "_embedding_bag_forward_only": lambda call: Cost.of_elements(
        prod(call.shape("indices")) * call.shape("weight")[-1], add=1
    ),
}


IN_PLACE_CAPABLE = frozenset(ELEMENTWISE)  # one output element needs one element of the first input
FOLDABLE = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training"})
TAKES_FOLD = frozenset({"convolution", "addmm", "mm", "linear"})


def cost(name: str, call: Call) -> Cost | None:
    """The Cost of a call without its traffic; None for an operator without a rule."""
    if name in RULES:
        return RULES[name](call)
    if name in MOVES:
        return Cost()
    if name in ELEMENTWISE:
        return Cost.of_elements(prod(call.output), **ELEMENTWISE[name]) if call.outputs else Cost()
    if name in REDUCTIONS:
        given = next(value for value in call.arguments.values() if isinstance(value, Tensor))
        if name in ("max", "min") and isinstance(call.arguments.get("other"), Tensor):
            return Cost.of_elements(prod(call.output), **REDUCTIONS[name])
        return Cost.of_elements(given.numel(), **REDUCTIONS[name])
    return None
