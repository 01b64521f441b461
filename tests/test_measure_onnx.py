"""The schedule of an ONNX file: weights, names, constants, merged nodes, what is not counted."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gossamer.measure.memory import liveness
from gossamer.measure.onnx.graph import record_onnx
from gossamer.measure.schedule import fold_norms
from onnx_samples import data, model, node, normal, ops, total, trained, uncounted

# names and weights


def test_layers_are_named_after_the_module_of_their_weight_else_after_their_node():
    nodes = [
        node("Conv", "x body.conv.weight body.conv.bias", "a", name="n0"),
        node("Relu", "a", "b", name="act"),
        node("Conv", "b w", "y"),
    ]
    weights = {"body.conv.weight": normal(4, 3, 3), "body.conv.bias": normal(4), "w": normal(2, 4, 1)}

    recorded = record_onnx(data(nodes, {"x": (1, 3, 8)}, weights))

    assert [(layer.name, layer.kind) for layer in recorded.layers] == [
        ("body.conv", "Conv"),
        ("act", "Relu"),
        ("Conv_2", "Conv"),
    ]
    assert [operation.node for operation in recorded.schedule.operations] == ["n0", "act", "Conv_2"]
    assert [(weight.name, weight.layer) for weight in recorded.weights] == [
        ("body.conv.weight", "body.conv"),
        ("body.conv.bias", "body.conv"),
        ("w", "Conv_2"),
    ]


def test_a_weight_read_through_a_constant_node_belongs_to_the_node_that_computes():
    nodes = [
        node("Transpose", "fc.weight", "t", perm=[1, 0]),
        node("Cast", "t", "c", to=TensorProto.FLOAT),
        node("MatMul", "x c", "y"),
    ]
    weight = normal(5, 7, dtype=np.float16)
    weight[0] = 0

    recorded = record_onnx(data(nodes, {"x": (3, 7)}, {"fc.weight": weight}))

    (operation,), (stored,) = recorded.schedule.operations, recorded.weights
    assert (operation.op, operation.layer, operation.weights) == ("MatMul", "fc", ("fc.weight",))
    assert (operation.cost.macs, operation.cost.macs_nonzero) == (105, 105 * 28 // 35)
    assert operation.cost.weight_bytes == 4 * 35  # as the product reads it
    assert (stored.layer, stored.dense_bytes, stored.nonzero) == ("fc", 70, 28)


def test_shapes_axes_and_single_numbers_are_no_weights():
    nodes = [
        node("Reshape", "x shape", "a"),
        node("Mul", "a half", "b"),
        node("PRelu", "b slope", "c"),
        node("Mul", "c block.alpha", "y"),
    ]
    held = {
        "shape": np.array([2, 6]),
        "half": np.float32(0.5),
        "slope": np.array([0.25], np.float32),
        "block.alpha": np.float32(2),
    }

    recorded = record_onnx(data(nodes, {"x": (3, 4)}, held))

    assert [weight.name for weight in recorded.weights] == ["slope", "block.alpha"]
    assert all(weight.trained for weight in recorded.weights)


def test_running_statistics_and_masks_are_no_parameters():
    nodes = [node("BatchNormalization", "x s b m v", "a"), node("Where", "mask a a", "y")]
    held = {
        "s": normal(4),
        "b": normal(4),
        "m": normal(4),
        "v": abs(normal(4)),
        "mask": np.ones((4, 9), bool),
    }

    recorded = record_onnx(data(nodes, {"x": (1, 4, 9)}, held))

    assert [weight.trained for weight in recorded.weights] == [True, True, False, False, False]


def test_a_weight_used_twice_counts_once_and_its_macs_twice():
    nodes = [node("MatMul", "x fc.weight", "a"), node("MatMul", "a fc.weight", "y")]

    recorded = record_onnx(data(nodes, {"x": (2, 5)}, {"fc.weight": normal(5, 5)}))

    assert total(recorded).macs == 2 * 50
    assert trained(recorded) == 25


def test_weights_that_nothing_reads_are_listed():
    recorded = record_onnx(data([node("Relu", "x")], {"x": (2, 5)}, {"old.weight": normal(5, 5)}))

    assert [(weight.name, weight.layer) for weight in recorded.weights] == [("old.weight", "old")]
    assert [layer.name for layer in recorded.layers] == ["Relu_0", "old"]


def test_the_tensor_of_a_constant_node_is_a_weight():
    tensor = onnx.numpy_helper.from_array(normal(5, 7))

    recorded = record_onnx(
        data([node("Constant", "", "w", value=tensor), node("MatMul", "w x")], {"x": (7, 3)})
    )

    assert ops(recorded) == ["MatMul"]
    assert (trained(recorded), total(recorded).weight_bytes) == (35, 140)


def test_tables_are_read_by_the_row():
    ids = np.zeros((2, 3), np.int64)

    recorded = record_onnx(data([node("Gather", "e.weight x")], {"x": ids}, {"e.weight": normal(100, 8)}))

    assert total(recorded).macs == total(recorded).total_other_ops == 0
    assert total(recorded).weight_bytes == 2 * 3 * 8 * 4
    assert trained(recorded) == 800


@pytest.mark.parametrize(("kind", "size"), [("float16", 2), ("int8", 1), ("float64", 8)])
def test_activations_take_what_their_type_takes(kind, size):
    recorded = record_onnx(data([node("Transpose", "x")], {"x": np.zeros((3, 4), kind)}))

    assert recorded.inputs == {"x": (kind, (3, 4))}
    assert recorded.schedule.sizes == {0: 12 * size, 1: 12 * size}


def test_two_values_of_four_bits_share_a_byte():
    made = model(
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w")], {"x": (3, 6)}, {"s": np.float32(1)}
    )
    made.graph.initializer.append(helper.make_tensor("q", TensorProto.INT4, (6, 5), [0, 1, -2] * 10))

    recorded = record_onnx(made.SerializeToString())

    weight = next(weight for weight in recorded.weights if weight.name == "q")
    assert (weight.numel, weight.stored_bytes, weight.dense_bytes, weight.nonzero) == (30, 15, 120, 20)
    assert total(recorded).macs_nonzero == 90 * 20 // 30


# what runs once, what is merged, what shares memory


def test_arithmetic_on_shapes_and_initialisers_is_no_operation():
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "m"),
        node("Concat", "m minus", "shape", axis=0),
        node("Reshape", "x shape", "a"),
        node("Mul", "w w", "square"),
        node("MatMul", "a square", "y"),
    ]
    held = {"zero": np.array(0), "axis": np.array([0]), "minus": np.array([-1]), "w": normal(12, 5)}

    recorded = record_onnx(data(nodes, {"x": ("n", 3, 4)}, held), {"x": (2, 3, 4)})

    assert ops(recorded) == ["Reshape", "MatMul"]
    assert total(recorded).macs == total(recorded).macs_nonzero == 2 * 12 * 5
    assert recorded.schedule.operations[1].weights == ("w",)


def test_a_vector_added_to_a_product_is_its_bias():
    nodes = [node("MatMul", "x fc.weight", "a"), node("Add", "fc.bias a", "y")]
    held = {"fc.weight": normal(7, 5), "fc.bias": normal(5)}

    recorded = record_onnx(data(nodes, {"x": (2, 3, 7)}, held))

    (operation,) = recorded.schedule.operations
    assert (operation.cost.macs, operation.cost.bias_adds, operation.cost.total_other_ops) == (210, 30, 0)
    assert operation.weights == ("fc.weight", "fc.bias")
    assert operation.cost.traffic_bytes == 4 * (42 + 35 + 5 + 30)
    assert operation.takes_fold


@pytest.mark.parametrize(
    ("added", "outputs"), [(normal(3, 1), "y"), (normal(3, 5), "y"), (normal(1), "y"), (normal(5), "y a")]
)
def test_any_other_sum_after_a_product_stays_a_sum(added, outputs):
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "y")]

    recorded = record_onnx(data(nodes, {"x": (3, 7)}, {"w": normal(7, 5), "b": added}, outputs=outputs))

    assert ops(recorded) == ["MatMul", "Add"]
    assert total(recorded).other_ops == {"add": 15}


def test_a_norm_after_a_convolution_can_be_folded():
    nodes = [node("Conv", "x w", "a"), node("BatchNormalization", "a s b m v", "c"), node("Relu", "c", "y")]
    vectors = {name: abs(normal(4)) for name in "sbmv"}

    recorded = record_onnx(data(nodes, {"x": (1, 3, 8)}, {"w": normal(4, 3, 3), **vectors}))
    folded = fold_norms(recorded.schedule).operations

    assert [operation.op for operation in folded] == ["Conv", "Relu"]
    assert (folded[0].cost.bias_adds, folded[0].cost.total_other_ops) == (24, 0)


def test_views_share_the_memory_of_what_they_show():
    nodes = [
        node("Relu", "x", "a"),
        node("Flatten", "a", "b"),
        node("Identity", "b", "c"),
        node("MatMul", "c w"),
    ]

    recorded = record_onnx(data(nodes, {"x": (2, 3, 4)}, {"w": normal(12, 5)}))

    relu, flatten, identity, product = recorded.schedule.operations
    assert relu.writes == flatten.writes == identity.writes == product.reads
    assert flatten.cost.traffic_bytes == 0
    assert recorded.schedule.sizes == {0: 96, 1: 96, 2: 40}
    assert liveness(recorded.schedule).peak_bytes == 192


def test_a_sum_may_overwrite_the_input_that_has_its_size():
    nodes = [node("Relu", "x", "a"), node("Add", "z a", "y")]

    recorded = record_onnx(data(nodes, {"x": (3, 4), "z": (1, 4)}))

    assert recorded.schedule.operations[1].elementwise
    assert recorded.schedule.operations[1].reads[0] == recorded.schedule.operations[0].writes[0]


# what is not counted


def test_operators_without_a_rule_are_listed_with_their_size():
    nodes = [
        node("TopK", "x k", "v i"),
        node("Mystery", "v", "m", domain="my.own"),
        node("Relu", "v", "y"),
    ]

    recorded = record_onnx(data(nodes, {"x": (3, 8)}, {"k": np.array([2])}, outputs="y m"))

    assert uncounted(recorded) == ["TopK", "my.own.Mystery"]
    first = recorded.schedule.operations[0]
    assert [recorded.schedule.sizes[tensor] for tensor in first.writes] == [24, 48]
    assert first.output_shape == (3, 2)
    assert total(recorded).other_ops == {"compare": 6}
    assert "shapes that stay unknown: 1" in recorded.notes[0]


def test_what_the_file_says_of_shapes_is_used_where_nothing_else_knows():
    made = model(
        [node("Mystery", "x", "m", domain="my.own"), node("Conv", "m w")],
        {"x": (1, 8)},
        {"w": normal(4, 3, 3)},
    )
    made.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, (1, 3, 9)))

    recorded = record_onnx(made.SerializeToString())

    assert total(recorded).macs == 4 * 7 * 9
    assert uncounted(recorded) == ["my.own.Mystery"]


def test_operators_inside_a_branch_are_named_and_their_weights_kept():
    def branch(op, *more):
        body = helper.make_graph(
            [helper.make_node(op, ["x", "w" if op == "MatMul" else "v"], ["r"])],
            op,
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(value, name) for name, value in more],
        )
        return body

    either = node(
        "If",
        "flag",
        "y",
        name="gate",
        then_branch=branch("MatMul"),
        else_branch=branch("Add", ("v", normal(5))),
    )
    made = data(
        [either, node("Relu", "y", "z")],
        {"x": (2, 5), "flag": np.zeros((), bool)},
        {"w": normal(5, 5)},
        outputs="z",
    )

    recorded = record_onnx(made)

    assert uncounted(recorded) == ["If"]
    assert "gate (If) is not counted" in recorded.notes[-1]
    assert "Add x1, MatMul x1" in recorded.notes[-1]
    assert {weight.name: weight.layer for weight in recorded.weights} == {"w": "gate", "v": "gate"}
    gate = recorded.schedule.operations[0]
    assert gate.reads == (1, 0)
    assert gate.weights == ("w", "v")


def test_random_numbers_are_not_constants():
    recorded = record_onnx(
        data([node("RandomNormal", "", "r", shape=[3, 4]), node("Add", "x r")], {"x": (3, 4)})
    )

    assert ops(recorded) == ["RandomNormal", "Add"]
    assert uncounted(recorded) == ["RandomNormal"]
