"""An ONNX graph becomes a torch module: its layers, names, weights, groups and branches."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gossamer.export import pack
from gossamer.models import from_onnx
from gossamer.runtime import open as open_packed
from onnx_cases import ints, normal, number, ran
from onnx_made import agree, loaded, model, node, small


def test_layers_are_torch_modules_under_the_names_of_their_weights():
    network = from_onnx(small().SerializeToString())

    assert isinstance(network.conv1, nn.Conv2d)
    assert isinstance(network.fc, nn.Linear)
    assert list(network.state_dict()) == ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"]
    assert (network.conv1.weight.detach().numpy() == normal(4, 3, 3, 3)).all()
    assert network.input_shape == (1, 3, 8, 8)
    assert not network.training


def test_a_copy_and_a_state_dict_make_the_same_network():
    network, x = from_onnx(small().SerializeToString()), torch.from_numpy(normal(2, 3, 8, 8))
    other = from_onnx(small().SerializeToString())
    with torch.no_grad():
        network.fc.weight.mul_(2)

    other.load_state_dict(network.state_dict())

    assert (copy.deepcopy(network)(x) == network(x)).all()
    assert (other(x) == network(x)).all()


def test_the_inputs_have_the_names_of_the_graph_and_outputs_come_by_name():
    network = loaded(
        [node("Add", "in.1 class", "sum"), node("Sub", "in.1 class", "difference")],
        {"in.1": (2,), "class": (2,)},
        {},
        outputs="sum difference",
    )
    a, b = torch.ones(2), torch.full((2,), 3.0)

    result = network(in_1=a, input_class=b)

    assert list(inspect.signature(network.forward).parameters) == ["in_1", "input_class"]
    assert {name: value.tolist() for name, value in result.items()} == {"sum": [4, 4], "difference": [-2, -2]}


@pytest.mark.parametrize(
    ("label", "name", "expected"),
    [
        ("encoder.layer.0.query.weight", "", "encoder.layer.0.query"),
        ("fire2/squeeze1x1_w", "", "fire2.squeeze1x1"),
        ("conv10_w_0", "", "conv10"),
        ("fc.weight_quantized", "", "fc"),
        ("model/dense/MatMul/ReadVariableOp:0", "", "model.dense"),
        ("onnx::MatMul_123", "/encoder/encoder.1/attention/query/MatMul", "encoder.1.attention.query"),
        ("onnx::Conv_12", "/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("val_28", "", "linear_1"),
        ("w7", "", "linear_1"),
        ("forward.weight", "", "forward_"),
        ("0.weight", "", "0"),
    ],
)
def test_a_layer_gets_the_best_name_that_the_file_knows(label, name, expected):
    network = loaded([node("MatMul", f"x {label}", "y", name=name)], {"x": (2, 3)}, {label: normal(3, 4)})

    assert [path for path, module in network.named_modules() if isinstance(module, nn.Linear)] == [expected]


def test_a_name_that_is_taken_gets_another_one():
    network = loaded(
        [
            node("MatMul", "x a.weight", "u"),
            node("MatMul", "u a.kernel", "v"),
            node("MatMul", "v a.b.weight", "y"),
        ],
        {"x": (2, 3)},
        {"a.weight": normal(3, 3), "a.kernel": normal(3, 3, seed=1), "a.b.weight": normal(3, 3, seed=2)},
    )

    names = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]

    assert names == ["a", "linear_2", "a_b"]


def test_a_table_used_for_tokens_and_logits_stays_one_parameter():
    nodes = [
        node("Gather", "table.weight tokens", "e"),
        node("Transpose", "table.weight", "t", perm=[1, 0]),
        node("MatMul", "e t", "y"),
    ]
    made = model(nodes, {"tokens": ("n", 3)}, {"table.weight": normal(7, 4)}, kind=TensorProto.INT64)
    network = from_onnx(made.SerializeToString())

    agree(made, {"tokens": np.array([[0, 6, 2]])})

    assert isinstance(network.table, nn.Embedding)
    assert len(list(network.parameters())) == 1
    assert network.linear_1.weight is network.table.weight


def test_one_layer_at_two_places_is_one_module_and_equal_vectors_are_not_tied():
    nodes = [
        node("Conv", "x conv.weight zero", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a conv.weight zero", "b", pads=[1, 1, 1, 1]),
        node("Conv", "b other.weight zero", "y"),
    ]
    weights = {
        "conv.weight": normal(3, 3, 3, 3),
        "other.weight": normal(3, 3, 1, 1),
        "zero": np.zeros(3, np.float32),
    }
    network = loaded(nodes, {"x": (1, 3, 5, 5)}, weights)

    assert [name for name, _ in network.named_children()] == ["conv", "other"]
    assert network.conv.bias is not network.other.bias


def test_constants_that_take_part_are_parameters_only_if_they_are_weights():
    nodes = [node("Add", "x position", "a"), node("Where", "mask a low", "b"), node("Mul", "b half", "y")]
    weights = {
        "position": normal(5, 4),
        "mask": np.tri(5, 4, dtype=bool),
        "low": np.full((5, 4), -np.inf, np.float32),
        "half": number(0.5),
    }
    network = loaded(nodes, {"x": ("n", 5, 4)}, weights)

    assert [name for name, _ in network.named_parameters()] == ["position"]
    assert [name for name, _ in network.named_buffers()] == ["mask", "low"]


def old_encoder(opset: int = 11) -> onnx.ModelProto:
    """A shape computed of a free batch, a linear layer, a layer norm, Gelu and Swish as exporters once wrote them."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch"),
        node("Unsqueeze", "batch", "first", axes=[0]),
        node("Concat", "first rest", "wanted", axis=0),
        node("Reshape", "x wanted", "r"),
        node("MatMul", "r onnx::MatMul_9", "m"),
        node("Add", "fc.bias m", "fc"),
        node("ReduceMean", "fc", "mean", axes=[-1]),
        node("Sub", "fc mean", "centred"),
        node("Pow", "centred two", "square"),
        node("ReduceMean", "square", "variance", axes=[-1]),
        node("Add", "variance tiny", "safe"),
        node("Sqrt", "safe", "root"),
        node("Div", "centred root", "normal"),
        node("Mul", "normal norm.weight", "scaled"),
        node("Add", "scaled norm.bias", "ln"),
        node("Div", "ln sqrt2", "g1"),
        node("Erf", "g1", "g2"),
        node("Add", "g2 one", "g3"),
        node("Mul", "ln g3", "g4"),
        node("Mul", "g4 half", "gelu"),
        node("Sigmoid", "gelu", "gate"),
        node("Mul", "gelu gate", "swish"),
        node("Concat", "first one_ width", "like", axis=0),
        node("ConstantOfShape", "like", "ones", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        node("Concat", "ones swish", "y", axis=1),
    ]
    weights = {
        "zero": number(0, np.int64),
        "rest": ints(-1, 3),
        "one_": ints(1),
        "width": ints(5),
        "onnx::MatMul_9": normal(3, 5),
        "fc.bias": normal(5),
        "norm.weight": normal(5),
        "norm.bias": normal(5, seed=1),
        "two": number(2),
        "tiny": number(1e-5),
        "sqrt2": number(2**0.5),
        "one": number(1),
        "half": number(0.5),
    }
    return model(nodes, {"x": ("N", 4, 6)}, weights, opset=opset)


def test_groups_that_old_exporters_wrote_become_one_layer_and_the_batch_stays_free(tmp_path):
    made = old_encoder()
    network = from_onnx(made.SerializeToString())
    x = normal(3, 4, 6)

    packed = pack(network, tmp_path / "old.goss", x)

    kinds = {name: type(module).__name__ for name, module in network.named_children()}
    assert kinds == {"fc": "Linear", "norm": "LayerNorm"}
    assert network.fc.bias is not None
    assert {"Gelu", "Swish"} <= {step.place.split("(")[-1].rstrip(")") for step in network.program.steps}
    assert packed.notes == ()
    session = open_packed(packed.path)
    for batch in (x, normal(5, 4, 6, seed=1)):
        want = ran(made, {"x": batch})[0]
        np.testing.assert_allclose(session(batch), want, atol=1e-5)
        agree(made, {"x": batch})


@pytest.mark.parametrize("reused", ["mean", "centred", "root", "g2", "gate"])
def test_a_group_whose_inner_value_is_read_elsewhere_is_left_alone_and_right(reused):
    made = old_encoder()
    made.graph.output.append(onnx.ValueInfoProto(name=reused))

    agree(made, {"x": normal(2, 4, 6)})


def test_a_batch_that_the_file_fixes_is_freed_where_it_can_be():
    nodes = [node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Reshape", "p s", "y")]
    network = loaded(nodes, {"x": (1, 3, 4, 4)}, {"s": ints(1, 12)})

    assert network(torch.zeros(5, 3, 4, 4)).shape == (5, 12)


@pytest.mark.parametrize("size", [3, 8])
def test_a_branch_is_chosen_by_a_size_a_value_or_a_constant(size):
    def branch(op: str, out: str) -> onnx.GraphProto:
        return helper.make_graph(
            [node(op, "x inner" if op == "Add" else "x", f"{out}0")],
            out,
            [],
            [onnx.ValueInfoProto(name=f"{out}0")],
            [numpy_helper.from_array(normal(1), "inner")] if op == "Add" else [],
        )

    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "n"),
        node("Greater", "n five", "big"),
        node("If", "big", "a", then_branch=branch("Add", "t"), else_branch=branch("Neg", "e")),
        node("ReduceSum", "a", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "b", then_branch=branch("Abs", "u"), else_branch=branch("Exp", "v")),
        node("If", "yes", "c", then_branch=branch("Tanh", "w"), else_branch=branch("Exp", "z")),
        node("Sum", "a b c", "y"),
    ]
    weights = {
        "one": number(1, np.int64),
        "five": number(5, np.int64),
        "zero": number(0.0),
        "yes": np.array(True),
    }
    made = model(nodes, {"x": ("n", "m")}, weights)

    agree(made, {"x": normal(2, size)})
    agree(made, {"x": -normal(2, size)})


def test_sequences_are_taken_apart_and_joined():
    nodes = [
        node("SplitToSequence", "x", "parts", axis=1),
        node("SequenceAt", "parts last", "a"),
        node("SplitToSequence", "x two", "halves", axis=1),
        node("ConcatFromSequence", "halves", "b", axis=0),
        node("SequenceConstruct", "a a", "pair"),
        node("ConcatFromSequence", "pair", "c", axis=0, new_axis=1),
        node("SplitToSequence", "x", "rows", axis=0, keepdims=0),
        node("SequenceAt", "rows last", "d"),
        node("SequenceLength", "parts", "n"),
        node("Cast", "n", "e", to=TensorProto.FLOAT),
    ]
    weights = {"last": number(-1, np.int64), "two": number(2, np.int64)}

    agree(model(nodes, {"x": (3, 4)}, weights, outputs="b c d e"), {"x": normal(3, 4)})


def test_a_half_precision_network_stays_one():
    weights = {"w.weight": normal(3, 4).astype(np.float16)}
    network = loaded([node("MatMul", "x w.weight", "y")], {"x": (2, 3)}, weights, kind=TensorProto.FLOAT16)

    assert network.w.weight.dtype == torch.float16
    assert network(torch.zeros(2, 3, dtype=torch.float16)).dtype == torch.float16


def test_a_network_learns():
    network = from_onnx(small().SerializeToString()).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    x, wanted = torch.from_numpy(normal(8, 3, 8, 8)), torch.arange(8) % 5
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(network(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.8 * losses[0]


def test_rounding_in_the_file_rounds_in_training_too():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    made = model(nodes, {"x": (6,)}, {"s": number(0.5), "z": number(3, np.uint8)})
    network = from_onnx(made.SerializeToString())
    x = torch.tensor([-9.0, -0.2, 0.25, 0.75, 1.3, 200.0], requires_grad=True)

    network(x).sum().backward()

    agree(made, {"x": x.detach().numpy()})
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]
