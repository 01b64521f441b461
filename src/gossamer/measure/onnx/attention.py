"""attention: attention in the forms that ONNX and ONNX Runtime have for it.

    MACs = B heads L_q L_k (d_k + d_v)    L_k counts keys of earlier calls; a causal mask saves nothing
    one exponential per score

Source: ONNX opset 23 (Attention); ONNX Runtime, docs/ContribOperators.md.
"""

from __future__ import annotations

from math import prod

from ...cost import Cost
from .. import formulas
from .call import Call, Rule, Shape


def _attending(query: Shape, key: Shape, value: Shape) -> Cost:
    """[B, heads, L, d] each; one exponential per score."""
    scores = prod(query[:-1]) * key[-2]
    return Cost.of_macs(formulas.attention(query, key, value)) + Cost.of_elements(scores, transcendental=1)


def _split_heads(shape: Shape, heads: int) -> Shape:
    """[B, L, heads d], or [B, L, heads, 2 or 3, d] of several in one -> [B, heads, L, d]; four axes stay."""
    if len(shape) == 4:
        return shape
    return (shape[0], heads, shape[1], shape[4] if len(shape) == 5 else shape[2] // heads)


def _longer(shape: Shape, past: Shape | None) -> Shape:
    """Keys or values with those of earlier calls before them."""
    return (*shape[:2], shape[2] + (past[-2] if past else 0), shape[3])


def _attention(call: Call) -> Cost:
    """ONNX opset 23: query, key, value, mask, past key, past value."""
    heads = call.get("q_num_heads", 0)
    grouped = call.get("kv_num_heads", heads)
    query = _split_heads(call.shape(0), heads)
    key = _longer(_split_heads(call.shape(1), grouped), call.optional(4))
    value = _longer(_split_heads(call.shape(2), grouped), call.optional(5))
    cost = _attending(query, key, value)
    scores = prod(query[:-1]) * key[-2] if call.get("softcap", 0.0) else 0
    return cost + Cost.of_elements(scores, transcendental=1)


def _multi_head(call: Call) -> Cost:
    """com.microsoft: query, key, value (or all packed in one), bias, mask, mask, bias, past key, past value."""
    heads = call.attributes["num_heads"]
    query = _split_heads(call.shape(0), heads)
    key = _split_heads(call.shape(1), heads) if call.has(1) else query
    value = _split_heads(call.shape(2), heads) if call.has(2) else key
    bias = prod(query) + prod(key) + prod(value) if call.has(3) else 0
    cost = _attending(query, _longer(key, call.optional(6)), _longer(value, call.optional(7)))
    return cost + Cost(bias_adds=bias)


def _grouped_query(call: Call) -> Cost:
    """com.microsoft: query, key, value, past key, past value; queries may have more heads than keys."""
    heads, grouped = call.attributes["num_heads"], call.attributes["kv_num_heads"]
    batch, length, width = call.shape(0)
    size = width // (heads if call.has(1) else heads + 2 * grouped)
    key = _longer((batch, grouped, length, size), call.optional(3))
    present = call.outputs[1] if len(call.outputs) > 1 else None
    if present is not None:  # past and present may share one buffer
        key = (batch, grouped, present[2], size)
    turned = batch * (heads + grouped) * length * size if call.get("do_rotary", 0) else 0
    return _attending((batch, heads, length, size), key, key) + Cost.of_elements(turned, multiply=2, add=1)


def _projected_attention(*, bias: int, past: int) -> Rule:
    """com.microsoft.Attention: input [B, L, I], weight [I, Q + K + V]; projection and attention in one."""

    def rule(call: Call) -> Cost:
        batch, length, _ = call.shape(0)
        inner, outs = call.shape(1)
        heads = call.attributes["num_heads"]
        wide, _, narrow = call.get("qkv_hidden_sizes", None) or [outs // 3] * 3
        before = call.optional(past)
        each = (batch, heads, length, wide // heads)
        key, values = _longer(each, before), _longer((batch, heads, length, narrow // heads), before)
        sums = batch * length * outs
        return Cost.of_macs(sums * inner, bias_adds=sums if call.has(bias) else 0) + _attending(
            each, key, values
        )

    return rule


RULES: dict[str, Rule] = {
    "Attention": _attention,
    "com.microsoft.Attention": _projected_attention(bias=2, past=4),
    "QAttention": _projected_attention(bias=2, past=8),
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped_query,
}
