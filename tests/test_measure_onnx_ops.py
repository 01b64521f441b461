"""What each family of ONNX operators costs, against closed formulas, torch's flop counter and brute force."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gossamer.cost import Cost
from gossamer.measure.onnx import ops as onnx_ops
from gossamer.measure.onnx.call import Call
from gossamer.measure.onnx.graph import record_onnx
from onnx_samples import MICROSOFT, data, node, normal, total, uncounted


def flops(function, *tensors) -> int:
    """What torch counts for a function of tensors."""
    with FlopCounterMode(display=False) as counter:
        function(*tensors)
    return counter.get_total_flops()


def cost(
    op: str, inputs, *, weights=None, names=None, domain="", opset=23, outputs="y", **attributes
) -> Cost:
    """The Cost of one node whose inputs are given as shapes or arrays, then weights as arrays."""
    given = {f"x{at}": shape for at, shape in enumerate(inputs)}
    held = {f"w{at}": value for at, value in enumerate(weights or [])}
    text = names or " ".join([*given, *held])
    made = data(
        [node(op, text, outputs, domain=domain, **attributes)], given, held, outputs=outputs, opset=opset
    )
    recorded = record_onnx(made)
    assert not uncounted(recorded)
    (operation,) = recorded.schedule.operations
    return operation.cost


# convolutions

CONVOLUTIONS = [
    ((2, 4, 20), (6, 4, 3), {"strides": [2]}),
    ((1, 3, 13, 11), (8, 3, 3, 5), {"pads": [1, 2, 1, 2]}),
    ((1, 8, 12, 12), (8, 1, 3, 3), {"group": 8, "pads": [1] * 4}),
    ((1, 8, 12, 12), (4, 2, 3, 3), {"group": 4, "dilations": [2, 3]}),
    ((1, 2, 7, 8, 9), (4, 2, 3, 2, 1), {"strides": [2, 1, 1]}),
]


@pytest.mark.parametrize(("x", "w", "options"), CONVOLUTIONS)
def test_a_convolution_costs_what_torch_counts(x, w, options):
    half = options.get("pads", [0] * 2 * (len(x) - 2))[: len(x) - 2]
    function = (F.conv1d, F.conv2d, F.conv3d)[len(x) - 3]

    def run(a, b):
        return function(
            a,
            b,
            stride=options.get("strides", 1),
            padding=half,
            dilation=options.get("dilations", 1),
            groups=options.get("group", 1),
        )

    counted = cost("Conv", [x], weights=[normal(*w)], **options)

    assert 2 * counted.macs == flops(run, torch.ones(x), torch.ones(w)) == counted.flops
    assert counted.bias_adds == 0


def test_a_bias_of_a_convolution_is_one_add_per_output():
    counted = cost("Conv", [(2, 3, 8, 8)], weights=[normal(4, 3, 3, 3), normal(4)])

    assert counted.bias_adds == 2 * 4 * 6 * 6


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_visits_every_input(groups):
    x, w = (2, 4, 5, 6), (4, 3, 3, 3)

    counted = cost(
        "ConvTranspose", [x], weights=[normal(*w), normal(3 * groups)], group=groups, strides=[2, 2]
    )

    assert counted.macs == 2 * 4 * 5 * 6 * 3 * 3 * 3
    assert 2 * counted.macs == flops(
        lambda a, b: F.conv_transpose2d(a, b, stride=2, groups=groups), torch.ones(x), torch.ones(w)
    )
    assert counted.bias_adds == 2 * 3 * groups * 11 * 13


# matrix products


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_is_rows_times_columns_times_depth(trans_a, trans_b):
    a, b = ((7, 5) if trans_a else (5, 7)), ((3, 7) if trans_b else (7, 3))

    counted = cost("Gemm", [a], weights=[normal(*b), normal(3)], transA=trans_a, transB=trans_b)

    assert (counted.macs, counted.bias_adds) == (5 * 7 * 3, 15)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 7), (7, 3)),
        ((2, 4, 5, 7), (4, 7, 3)),
        ((1, 5, 7), (6, 7, 3)),
        ((7,), (7, 3)),
        ((4, 5, 7), (7,)),
        ((7,), (7,)),
    ],
)
def test_a_matrix_product_costs_its_output_times_what_is_summed(left, right):
    assert cost("MatMul", [left, right]).macs == np.matmul(np.ones(left), np.ones(right)).size * 7


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)], 2 * 3 * 4 * 5 * 6),
        ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 6)], 2 * 3 * 4 * 5 * 6),
        ("bi,bi->b", [(4, 5), (4, 5)], 20),
        ("ij,jk", [(4, 5), (5, 6)], 120),
        ("...i,i->i", [(4, 5), (5,)], 20),
        ("ij->ji", [(4, 5)], 0),
    ],
)
def test_einsum_costs_the_product_of_its_letters(equation, shapes, macs):
    assert cost("Einsum", shapes, equation=equation).macs == macs


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("i,j->ij", [(4,), (5,)]),
        ("ij,ij->ij", [(4, 5), (4, 5)]),
        ("i,j", [(4,), (5,)]),
        ("...i,i->...i", [(4, 5), (5,)]),
    ],
)
def test_einsum_that_sums_nothing_multiplies_as_torch_counts_it(equation, shapes):
    found = cost("Einsum", shapes, equation=equation)

    assert (found.macs, found.other_ops) == (0, {"multiply": 20})


def test_einsum_of_one_operand_adds_what_it_sums():
    assert cost("Einsum", [(4, 5)], equation="ij->i").other_ops == {"add": 20}


# recurrent layers: brute force over time, gates and units


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_layer_costs_every_gate_of_every_step(op, gates, direction):
    steps, batch, size, hidden = 6, 2, 5, 7
    ways = 2 if direction == "bidirectional" else 1
    w, r = normal(ways, gates * hidden, size), normal(ways, gates * hidden, hidden)

    counted = cost(
        op,
        [(steps, batch, size)],
        weights=[w, r, normal(ways, 2 * gates * hidden)],
        hidden_size=hidden,
        direction=direction,
    )

    assert counted.macs == sum(w.size + r.size for _ in range(steps * batch))
    assert counted.bias_adds == steps * batch * ways * 2 * gates * hidden
    exponentials = {"LSTM": 5, "GRU": 3, "RNN": 1}[op]
    assert counted.other_ops["transcendental"] == exponentials * steps * batch * ways * hidden


def test_zero_weights_of_both_matrices_of_an_lstm_count():
    w, r = normal(1, 8, 3), normal(1, 8, 2)
    w[0, :4], r[0, 5] = 0, 0

    counted = cost("LSTM", [(4, 1, 3)], weights=[w, r], hidden_size=2)

    assert counted.macs_nonzero == 4 * (np.count_nonzero(w) + np.count_nonzero(r))


# attention


def test_attention_of_four_axes_counts_grouped_heads_and_earlier_keys():
    q, k, v = (2, 8, 5, 16), (2, 2, 7, 16), (2, 2, 7, 12)
    past_k, past_v = (2, 2, 3, 16), (2, 2, 3, 12)

    counted = cost(
        "Attention",
        [q, k, v, past_k, past_v],
        names="x0 x1 x2 _ x3 x4",
        outputs="y present_k present_v",
    )

    assert counted.macs == 2 * 8 * 5 * (7 + 3) * (16 + 12)
    assert counted.other_ops == {"transcendental": 2 * 8 * 5 * 10}


def test_attention_of_three_axes_splits_its_heads():
    counted = cost(
        "Attention", [(2, 5, 64), (2, 7, 32), (2, 7, 32)], q_num_heads=4, kv_num_heads=2, softcap=5.0
    )

    assert counted.macs == 2 * 4 * 5 * 7 * (16 + 16)
    assert counted.other_ops == {"transcendental": 2 * (2 * 4 * 5 * 7)}


def test_multi_head_attention_of_onnx_runtime_adds_its_bias():
    counted = cost(
        "MultiHeadAttention",
        [(2, 5, 32), (2, 7, 32), (2, 7, 32)],
        weights=[normal(96)],
        domain=MICROSOFT,
        num_heads=4,
    )

    assert counted.macs == 2 * 4 * 5 * 7 * (8 + 8)
    assert counted.bias_adds == 2 * 32 * (5 + 7 + 7)


def test_packed_attention_of_onnx_runtime_includes_the_projection():
    counted = cost(
        "Attention", [(2, 5, 32)], weights=[normal(32, 96), normal(96)], domain=MICROSOFT, num_heads=4
    )

    assert counted.macs == 2 * 5 * 32 * 96 + 2 * 4 * 5 * 5 * 16
    assert counted.bias_adds == 2 * 5 * 96


def test_grouped_query_attention_saves_no_product():
    call = Call(
        "GroupQueryAttention",
        [(1, 3, 64), (1, 3, 16), (1, 3, 16), (1, 2, 9, 8), (1, 2, 9, 8)],
        [(1, 3, 64), (1, 2, 12, 8), (1, 2, 12, 8)],
        {"num_heads": 8, "kv_num_heads": 2, "do_rotary": 1},
    )

    counted = onnx_ops.cost(call)

    assert counted.macs == 8 * 3 * 12 * 16
    assert counted.other_ops["multiply"] == 2 * 3 * (64 + 16)


# products of ONNX Runtime, and of integers


def test_fused_products_count_their_activation():
    x, w = (1, 3, 6, 6), normal(4, 3, 3, 3)

    convolution = cost("FusedConv", [x], weights=[w, normal(4)], domain=MICROSOFT, activation="Relu")
    product = cost("FusedMatMul", [(2, 7, 5)], weights=[normal(7, 3)], domain=MICROSOFT, transA=1)
    gemm = cost("FusedGemm", [(5, 7)], weights=[normal(7, 3), normal(3)], domain=MICROSOFT, activation="Relu")

    assert (convolution.macs, convolution.bias_adds) == (4 * 16 * 27, 64)
    assert convolution.other_ops == {"compare": 64}
    assert product.macs == 2 * 5 * 7 * 3
    assert (gemm.macs, gemm.bias_adds, gemm.other_ops) == (105, 15, {"compare": 15})


def test_weights_of_four_bits_are_counted_at_their_real_shape():
    packed = np.full((6, 1, 16), 0x88, np.uint8)  # [N, blocks of K, bytes]
    made = data(
        [node("MatMulNBits", "x w s", domain=MICROSOFT, N=6, K=32, bits=4, block_size=32)],
        {"x": (2, 3, 32)},
        {"w": packed, "s": normal(6, 1)},
    )

    recorded = record_onnx(made)

    (operation,), (weight, scale) = recorded.schedule.operations, recorded.weights
    assert operation.cost.macs == 2 * 3 * 32 * 6
    assert (weight.shape, weight.numel, weight.dense_bytes) == ((6, 32), 192, 4 * 192)
    assert (weight.stored_bytes, weight.nonzero) == (96, None)
    assert not scale.trained


INTEGER = [
    ("MatMulInteger", "x w", {"x": (5, 7)}, {"w": (7, 3)}, "", {}),
    ("MatMulIntegerToFloat", "x w s t", {"x": (5, 7)}, {"w": (7, 3), "s": (), "t": ()}, MICROSOFT, {}),
    ("DynamicQuantizeMatMul", "f w s", {"f": (5, 7)}, {"w": (7, 3), "s": ()}, MICROSOFT, {}),
    ("QLinearMatMul", "x s z w s z s z", {"x": (5, 7)}, {"w": (7, 3), "s": (), "z": ()}, "", {}),
    ("QGemm", "x s z w s z _ s z", {"x": (5, 7)}, {"w": (7, 3), "s": (), "z": ()}, MICROSOFT, {}),
    ("ConvInteger", "x w", {"x": (1, 7, 5)}, {"w": (3, 7, 1)}, "", {}),
    ("QLinearConv", "x s z w s z s z", {"x": (1, 7, 5)}, {"w": (3, 7, 1), "s": (), "z": ()}, "", {}),
]


@pytest.mark.parametrize(
    ("op", "names", "x", "held", "domain", "options"), INTEGER, ids=lambda v: str(v)[:20]
)
def test_products_of_integers_cost_the_same_macs(op, names, x, held, domain, options):
    weights = {
        name: np.full(shape, 3, np.uint8) if name in "wz" else np.full(shape, 0.5, np.float32)
        for name, shape in held.items()
    }
    given = {name: np.zeros(shape, np.float32 if name == "f" else np.uint8) for name, shape in x.items()}

    recorded = record_onnx(data([node(op, names, domain=domain, **options)], given, weights))

    assert not uncounted(recorded)
    assert total(recorded).macs == 105
    (weight,) = [weight for weight in recorded.weights if weight.trained]
    assert (weight.name, weight.dense_bytes, weight.stored_bytes) == ("w", 4 * 21, 21)


# interpolation, pools, norms


@pytest.mark.parametrize(("mode", "taps"), [("nearest", 0), ("linear", 4), ("cubic", 16)])
def test_resizing_costs_its_taps(mode, taps):
    scales = np.array([1, 1, 2, 2], np.float32)

    counted = cost("Resize", [(1, 3, 5, 6)], weights=[scales], names="x0 _ w0", mode=mode)

    assert counted.macs == taps * 3 * 10 * 12


def test_resizing_with_a_growing_window_has_no_rule():
    call = Call("Resize", [(1, 3, 8, 8)], [(1, 3, 4, 4)], {"mode": "linear", "antialias": 1})

    assert onnx_ops.cost(call) is None


def test_the_old_upsampling_is_a_resize():
    scales = np.array([1, 1, 2], np.float32)

    assert cost("Upsample", [(1, 3, 5)], weights=[scales], opset=9, mode="linear").macs == 2 * 3 * 10


@pytest.mark.parametrize(("mode", "taps"), [("nearest", 0), ("linear", 4), ("cubic", 16)])
def test_sampling_a_grid_costs_its_taps(mode, taps):
    assert cost("GridSample", [(1, 3, 5, 6), (1, 7, 8, 2)], mode=mode).macs == taps * 3 * 7 * 8


POOLS = [
    ("MaxPool", {"kernel_shape": [3, 2]}, {"compare": 5 * 2 * 3 * 6 * 7}),
    ("AveragePool", {"kernel_shape": [3, 2]}, {"add": 6 * 2 * 3 * 6 * 7}),
    ("GlobalAveragePool", {}, {"add": 2 * 3 * 8 * 8}),
    ("GlobalMaxPool", {}, {"compare": 2 * 3 * 8 * 8}),
    ("ReduceMean", {}, {"add": 2 * 3 * 8 * 8}),
    ("ReduceMax", {"keepdims": 0}, {"compare": 2 * 3 * 8 * 8}),
    ("ReduceL2", {}, {"add": 2 * 3 * 8 * 8, "multiply": 2 * 3 * 8 * 8}),
    ("ArgMax", {"axis": 1}, {"compare": 2 * 3 * 8 * 8}),
]


@pytest.mark.parametrize(("op", "options", "kinds"), POOLS)
def test_pools_and_reductions_cost_their_window(op, options, kinds):
    out = (2, 3, 6, 7)
    assert prod(out) == 2 * 3 * 6 * 7

    assert cost(op, [(2, 3, 8, 8)], **options).other_ops == kinds


def test_norms_cost_seven_operations_an_element():
    x, count = (2, 4, 5, 5), 200
    c = [normal(4), normal(4)]

    layer = cost("LayerNormalization", [(2, 4, 5)], weights=[normal(5), normal(5)])
    group = cost("GroupNormalization", [x], weights=c, num_groups=2)
    instance = cost("InstanceNormalization", [x], weights=c)
    root = cost("RMSNormalization", [(2, 4, 5)], weights=[normal(5)])
    batch = cost("BatchNormalization", [x], weights=[*c, normal(4), abs(normal(4))])

    assert layer.other_ops == {"add": 4 * 40, "multiply": 3 * 40, "transcendental": 2 * 4}
    assert group.other_ops == {"add": 4 * count, "multiply": 3 * count, "transcendental": 2 * 2}
    assert instance.other_ops == {"add": 4 * count, "multiply": 3 * count, "transcendental": 2 * 4}
    assert root.other_ops == {"add": 40, "multiply": 3 * 40}
    assert batch.other_ops == {"add": count, "multiply": count}


def test_a_norm_with_a_shortcut_adds_it():
    x = (2, 4, 8)
    vectors = [normal(8), normal(8)]

    counted = cost("SkipLayerNormalization", [x, x], weights=vectors, domain=MICROSOFT)

    assert counted.other_ops["add"] == (4 + 1) * 64


# elementwise operators and moves


@pytest.mark.parametrize(
    ("op", "kinds"),
    [
        ("Relu", {"compare": 1}),
        ("LeakyRelu", {"compare": 1, "multiply": 1}),
        ("Sigmoid", {"transcendental": 1}),
        ("Gelu", {"transcendental": 1}),
        ("HardSwish", {"add": 1, "compare": 2, "multiply": 2}),
        ("Neg", {"add": 1}),
        ("Reciprocal", {"multiply": 1}),
        ("Not", {"compare": 1}),
        ("Softmax", {"transcendental": 1}),
        ("Elu", {"transcendental": 1, "compare": 1}),
    ],
)
def test_a_unary_operator_costs_per_element(op, kinds):
    x = np.zeros((3, 4), bool) if op == "Not" else (3, 4)

    assert cost(op, [x]).other_ops == {kind: 12 * each for kind, each in kinds.items()}


def test_binary_and_ternary_operators_cost_per_element_of_the_result():
    condition = np.zeros((4,), bool)

    assert cost("Add", [(3, 1), (1, 4)]).other_ops == {"add": 12}
    assert cost("Div", [(3, 4), ()]).other_ops == {"multiply": 12}
    assert cost("Greater", [(3, 4), (4,)]).other_ops == {"compare": 12}
    assert cost("Where", [condition, (3, 4), (3, 1)]).other_ops == {"compare": 12}
    assert cost("Sum", [(3, 4)] * 3).other_ops == {"add": 24}
    assert cost("Mean", [(3, 4)] * 3).other_ops == {"add": 24, "multiply": 12}
    assert cost("Max", [(3, 4)] * 2).other_ops == {"compare": 12}


def test_quantizing_costs_a_scale_a_zero_point_and_two_bounds():
    scale, zero = np.float32(0.1), np.uint8(3)

    there = cost("QuantizeLinear", [(3, 4)], weights=[scale, zero])
    back = cost("DequantizeLinear", [np.zeros((3, 4), np.uint8)], weights=[scale, zero])
    measured = cost("DynamicQuantizeLinear", [(3, 4)], outputs="y s z")

    assert there.other_ops == {"multiply": 12, "add": 12, "compare": 24}
    assert back.other_ops == {"multiply": 12, "add": 12}
    assert measured.other_ops == {"multiply": 12, "add": 12, "compare": 48}


MOVES = [
    ("Transpose", [(3, 4)], [], {}, (48, 48)),
    ("Concat", [(3, 4), (2, 4)], [], {"axis": 0}, (80, 80)),
    ("Pad", [(3, 4)], [np.array([1, 0, 0, 0])], {}, (48, 64)),
    ("Expand", [(1, 4)], [np.array([5, 4])], {}, (16, 80)),
    ("Slice", [(8, 4)], [np.array([0]), np.array([2]), np.array([0])], {}, (32, 32)),
    ("Gather", [(8, 4)], [np.array([1, 5])], {}, (32, 32)),
    ("Tile", [(3, 4)], [np.array([2, 1])], {}, (48, 96)),
    ("DepthToSpace", [(1, 4, 2, 2)], [], {"blocksize": 2}, (64, 64)),
    ("Cast", [(3, 4)], [], {"to": onnx.TensorProto.FLOAT16}, (48, 24)),
]


@pytest.mark.parametrize(("op", "inputs", "weights", "options", "moved"), MOVES)
def test_moves_cost_bytes_and_no_operations(op, inputs, weights, options, moved):
    counted = cost(op, inputs, weights=weights, **options)

    assert (counted.macs, counted.total_other_ops) == (0, 0)
    assert (counted.input_bytes, counted.output_bytes, counted.weight_bytes) == (*moved, 0)


def test_no_operator_stands_in_two_tables():
    tables = [
        {**onnx_ops.RULES, **onnx_ops.products.RULES},
        onnx_ops.ELEMENTWISE,
        onnx_ops.PER_OUTPUT,
        onnx_ops.REDUCTIONS,
        onnx_ops.MOVES,
        onnx_ops.VIEWS,
    ]

    names = [name for table in tables for name in table]

    assert len(names) == len(set(names))


LEFT_OUT = """
    AffineGrid BlackmanWindow HammingWindow HannWindow MelWeightMatrix DFT STFT Bernoulli Multinomial RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Col2Im DeformConv Det If Loop Scan ImageDecoder
    NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss NonMaxSuppression Optional OptionalGetElement
    OptionalHasElement RegexFullMatch RoiAlign MaxRoiPool SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence ConcatFromSequence StringConcat
    StringNormalizer StringSplit TfIdfVectorizer TopK Unique Constant
"""


def test_every_operator_up_to_opset_24_has_a_rule_or_is_left_out_on_purpose():
    schemas = [
        s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.since_version <= 24
    ]
    known = {schema.name for schema in schemas}

    ruled = set(onnx_ops.RULES) | set(onnx_ops.products.RULES) | set(onnx_ops.ELEMENTWISE)
    ruled |= set(onnx_ops.PER_OUTPUT) | set(onnx_ops.REDUCTIONS) | onnx_ops.MOVES | onnx_ops.VIEWS

    assert known - ruled == set(LEFT_OUT.split()) & known
