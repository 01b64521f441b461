"""elementwise: operators of torch whose cost follows from a number of elements.

    ELEMENTWISE  operations of each kind per element of the output
    REDUCTIONS   operations of each kind per element of the input
    MOVES        no operations, but bytes: copies, joins, look-ups, new tensors

Names are those of the schema without namespace, overload and the underscore of the in-place form. A kind counts
as often as the formula of the operator names it; a whole formula of exponentials (GELU) is one transcendental.
"""

from __future__ import annotations


def _each(names: str, **kinds: float) -> dict[str, dict[str, float]]:
    """The same operations for every name of the list."""
    return dict.fromkeys(names.split(), kinds)


ELEMENTWISE: dict[str, dict[str, float]] = {
    **_each("add sub rsub neg round floor ceil trunc frac cumsum", add=1),
    **_each("mul div reciprocal square fmod remainder floor_divide cumprod", multiply=1),
    **_each("eq ne lt le gt ge isin logical_not logical_and logical_or logical_xor", compare=1),
    **_each("bitwise_and bitwise_or bitwise_xor bitwise_not __lshift__ __rshift__", compare=1),
    **_each("bitwise_left_shift bitwise_right_shift", compare=1),
    **_each("relu relu6 clamp clamp_min clamp_max hardtanh threshold hardshrink", compare=1),
    **_each("maximum minimum fmax fmin", compare=1),
    **_each(
        "abs sign where masked_fill isnan isinf isfinite isneginf isposinf nan_to_num signbit", compare=1
    ),
    **_each("exp exp2 expm1 log log2 log10 log1p sqrt rsqrt pow erf erfc lgamma digamma", transcendental=1),
    **_each("sin cos tan sinh cosh tanh asin acos atan atan2", transcendental=1),
    **_each("sigmoid log_sigmoid_forward logit gelu softplus", transcendental=1),
    **_each("_softmax _safe_softmax _log_softmax", transcendental=1),
    **_each("elu selu celu", transcendental=1, compare=1),
    **_each("silu glu", transcendental=1, multiply=1),
    **_each("mish", transcendental=2, multiply=1),
    **_each("logcumsumexp", transcendental=2, add=1),
    **_each("leaky_relu _prelu_kernel rrelu_with_noise", compare=1, multiply=1),
    **_each("softshrink", add=1, compare=1),
    **_each("hardsigmoid", add=1, compare=2, multiply=1),
    **_each("hardswish", add=1, compare=2, multiply=2),
    **_each("addcmul addcdiv lerp xlogy", add=1, multiply=2),
    **_each(
        "fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask",
        add=2,
        multiply=2,
        compare=2,
    ),
}

REDUCTIONS: dict[str, dict[str, float]] = {
    **_each("sum mean nansum", add=1),
    **_each("prod", multiply=1),
    **_each("amax amin max min argmax argmin aminmax any all count_nonzero", compare=1),
    **_each("var std var_mean std_mean", add=3, multiply=1),
    **_each("norm linalg_vector_norm", add=1, multiply=1),
    **_each("logsumexp", transcendental=1, add=1),
}

MOVES = frozenset(
    _each("""
    _to_copy clone copy contiguous _unsafe_view _reshape_copy cat stack concat repeat roll flip rot90 tril triu
    index index_select gather take embedding slice_scatter select_scatter scatter index_put _index_put_impl
    index_copy masked_select masked_scatter repeat_interleave one_hot nonzero meshgrid diag_embed
    constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d im2col col2im max_unpool2d max_unpool3d
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided zeros zeros_like new_zeros
    ones ones_like new_ones full full_like new_full scalar_tensor arange linspace eye fill zero
    tril_indices triu_indices lift_fresh lift_fresh_copy detach_copy _efficientzerotensor
    unsafe_split unsafe_split_with_sizes unsafe_chunk split_with_sizes_copy resize set
    native_dropout bernoulli rand randn rand_like randn_like randint randperm normal uniform
    _local_scalar_dense equal is_same_size sym_size _assert_async _assert_tensor_metadata
    """)
)
