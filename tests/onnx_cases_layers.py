"""Nodes that have weights or windows, or round."""

from __future__ import annotations

import numpy as np

from onnx_cases import PICTURE, X, case, normal, number, positive, truth, whole

PRODUCTS = [
    case("MatMul", normal(2, 3, 4), normal(2, 4, 5)),
    case("MatMul", normal(2, 3, 4), normal(4, 5), constant=(1,)),
    case("MatMul", normal(4), normal(4, 5), constant=(1,)),
    case("MatMul", normal(5, 4), normal(2, 4, 3), constant=(0,)),
    case("MatMul", normal(2, 3, 4), normal(4), constant=(1,)),
    case("Gemm", normal(2, 4), normal(4, 3), normal(3), constant=(1, 2)),
    case("Gemm", normal(2, 4), normal(3, 4), normal(1, 3), constant=(1, 2), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", normal(2, 4), normal(3, 4), number(0.5), constant=(1, 2), transB=1),
    case("Gemm", normal(4, 2), normal(3, 4), normal(2, 1), constant=(1, 2), transA=1, transB=1),
    case("Gemm", normal(2, 4), normal(4, 3), normal(2, 3), constant=(1,), alpha=0.5, beta=2.0),
    case("Gemm", normal(2, 4), normal(4, 3), constant=(1,), opset=11),
    case("Gemm", normal(4, 2), normal(4, 3), normal(3), transA=1),
    *(
        case(
            "Attention",
            normal(2, 4, 5, 8),
            normal(2, keys, 6, 8),
            normal(2, keys, 6, 8, seed=1),
            opset=23,
            **given,
        )
        for keys, given in ((4, {}), (2, {}), (4, {"is_causal": 1}), (4, {"scale": 0.3}))
    ),
    case("Attention", *[normal(2, 5, 8)] * 3, q_num_heads=2, kv_num_heads=2, opset=23),
    case("Attention", *[normal(2, 4, 5, 8)] * 3, truth(5, 5) | np.eye(5, dtype=bool), opset=23),
    case("Attention", *[normal(2, 4, 5, 8)] * 3, normal(5, 5), is_causal=1, opset=23),
    case("Einsum", normal(2, 3, 4), normal(2, 4, 5), equation="bij, bjk -> bik"),
]
WINDOWS = [
    case("Conv", PICTURE, normal(5, 4, 3, 3), normal(5), constant=(1, 2)),
    case("Conv", PICTURE, normal(5, 4, 3, 3), normal(5)),
    case(
        "Conv",
        PICTURE,
        normal(6, 2, 3, 2),
        constant=(1,),
        group=2,
        strides=[2, 1],
        pads=[1, 0, 1, 0],
        dilations=[1, 2],
    ),
    case("Conv", PICTURE, normal(6, 4, 3, 3), constant=(1,), pads=[0, 1, 2, 0], strides=[2, 2]),
    case("Conv", PICTURE, normal(6, 4, 3, 3), pads=[0, 1, 2, 0], strides=[2, 2]),
    *(
        case("Conv", PICTURE, normal(6, 4, 4, 3), constant=(1,), auto_pad=auto, strides=[2, 3])
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case("Conv", normal(2, 3, 9), normal(4, 3, 3), constant=(1,), pads=[2, 1]),
    case(
        "Conv",
        normal(1, 2, 5, 6, 7),
        normal(3, 2, 3, 2, 3),
        normal(3),
        constant=(1, 2),
        pads=[1, 1, 1, 1, 1, 1],
    ),
    case(
        "ConvTranspose",
        PICTURE,
        normal(4, 5, 3, 3),
        normal(5),
        constant=(1, 2),
        strides=[2, 2],
        pads=[1, 1, 1, 1],
    ),
    case(
        "ConvTranspose",
        PICTURE,
        normal(4, 3, 3, 3),
        normal(6),
        constant=(1, 2),
        group=2,
        strides=[2, 3],
        output_padding=[1, 2],
    ),
    case(
        "ConvTranspose",
        PICTURE,
        normal(4, 5, 3, 3),
        normal(5),
        constant=(1, 2),
        strides=[2, 2],
        pads=[1, 0, 0, 1],
        output_padding=[1, 1],
    ),
    case("ConvTranspose", PICTURE, normal(4, 5, 3, 3), strides=[2, 2], pads=[1, 0, 0, 1], dilations=[2, 1]),
    *(
        case(
            "ConvTranspose",
            PICTURE,
            normal(4, 5, 3, 4),
            normal(5),
            constant=(1, 2),
            auto_pad=auto,
            strides=[2, 3],
        )
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case("ConvTranspose", PICTURE, normal(4, 5, 3, 3), constant=(1,), strides=[2, 2], output_shape=[14, 18]),
    case("ConvTranspose", normal(2, 3, 6), normal(3, 4, 4), constant=(1,), strides=[2], pads=[1, 1]),
    *(
        case(op, PICTURE, kernel_shape=[3, 2], **given)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for given in (
            {},
            {"strides": [2, 2]},
            {"strides": [2, 3], "pads": [1, 1, 1, 1]},
            {"strides": [2, 2], "pads": [1, 0, 0, 1]},
            {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
            {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
            {"strides": [3, 2], "ceil_mode": 1},
            {"strides": [3, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1},
            {"strides": [2, 2], "dilations": [2, 1]},
            {"strides": [2, 4], "pads": [1, 1, 1, 1], "ceil_mode": 1, "dilations": [2, 2]},
        )
    ),
    *(
        case("AveragePool", PICTURE, kernel_shape=[3, 3], count_include_pad=1, **given)
        for given in (
            {"pads": [1, 1, 1, 1]},
            {"pads": [1, 0, 2, 1], "strides": [2, 2]},
            {"pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1},
            {"pads": [1, 0, 1, 1], "strides": [2, 3], "ceil_mode": 1},
        )
    ),
    case("MaxPool", normal(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("AveragePool", normal(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
    case("MaxPool", normal(1, 2, 5, 6, 7), kernel_shape=[2, 3, 2], strides=[2, 2, 2]),
    *(case(op, PICTURE) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    case("GlobalAveragePool", normal(2, 3, 5)),
]
NORMS = [
    *(
        case("BatchNormalization", x, *[positive(4)] * 4, constant=(1, 2, 3, 4), epsilon=1e-3, opset=opset)
        for x, opset in ((PICTURE, 9), (PICTURE, 15), (normal(3, 4), 15), (normal(3, 4, 5), 15))
    ),
    case("BatchNormalization", PICTURE, *[positive(4)] * 4, opset=15),
    case("InstanceNormalization", PICTURE, normal(4), normal(4, seed=1), constant=(1, 2)),
    case("InstanceNormalization", PICTURE, normal(4), normal(4, seed=1)),
    case("LayerNormalization", X, normal(4), normal(4, seed=1), constant=(1, 2), epsilon=1e-3),
    case("LayerNormalization", X, normal(3, 4), constant=(1,), axis=1),
    case("LayerNormalization", X, normal(4), normal(3, 4, seed=1), constant=(1, 2), axis=1),
    case("LayerNormalization", X, normal(4), normal(4, seed=1)),
    case("GroupNormalization", PICTURE, normal(4), normal(4, seed=1), constant=(1, 2), num_groups=2),
    case("GroupNormalization", PICTURE, normal(4), normal(4, seed=1), num_groups=2),
    case("RMSNormalization", X, normal(4), constant=(1,), opset=23),
    *(case("LpNormalization", X, p=p, axis=axis) for p in (1, 2) for axis in (-1, 1)),
    case("LRN", normal(2, 9, 3, 3), size=5, alpha=0.1, beta=0.5, bias=1.5),
    case("MeanVarianceNormalization", PICTURE),
]
INTEGERS = [
    case("QuantizeLinear", X, number(0.03), number(7, np.uint8), constant=(1, 2)),
    case("QuantizeLinear", X, number(0.03), constant=(1,)),
    case("QuantizeLinear", X, positive(3) * 0.1, whole(3, dtype=np.int8), constant=(1, 2), axis=1),
    case(
        "DequantizeLinear",
        whole(2, 3, low=-128, high=128, dtype=np.int8),
        number(0.03),
        number(5, np.int8),
        constant=(1, 2),
    ),
    case(
        "DequantizeLinear", whole(2, 3, low=0, high=256, dtype=np.uint8), positive(2), constant=(1,), axis=0
    ),
    case("DequantizeLinear", whole(4, 6, dtype=np.int8), positive(4, 2), constant=(1,), axis=1, block_size=3),
]
RECURRENT = [
    *(
        case(
            op,
            normal(5, 2, 3),
            normal(count, gates * 4, 3),
            normal(count, gates * 4, 4),
            normal(count, 2 * gates * 4),
            None,
            *[normal(count, 2, 4)] * states,
            constant=(1, 2, 3),
            outputs=1 + max(states, 1) if op != "LSTM" else 3,
            hidden_size=4,
            direction=direction,
            opset=14,
            **({"linear_before_reset": 1} if op == "GRU" else {}),
        )
        for op, gates, state in (("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1))
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
        for states in (0, state)
    ),
    case(
        "RNN",
        normal(5, 2, 3),
        normal(1, 4, 3),
        normal(1, 4, 4),
        constant=(1, 2),
        outputs=2,
        hidden_size=4,
        activations=["Relu"],
    ),
]
