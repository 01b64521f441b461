"""ONNX files: what can be read, and what is said about the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from gossamer.errors import ModelError
from gossamer.models import from_onnx, load_model
from onnx_cases import ints, normal, ran
from onnx_made import agree, model, node, small


@pytest.mark.parametrize("external", [False, True])
def test_load_model_reads_an_onnx_file_and_its_external_data(external, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(small(), path, save_as_external_data=external, size_threshold=0, location="net.data")
    assert (tmp_path / "net.data").exists() == external

    network = load_model(str(path))

    x = normal(2, 3, 8, 8)
    np.testing.assert_allclose(
        network(torch.from_numpy(x)).detach().numpy(), ran(small(), {"x": x})[0], atol=1e-5
    )


def test_functions_in_the_file_and_operators_defined_by_others_are_inlined():
    body = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 18)]
    )
    made = model(
        [helper.make_node("Twice", ["x"], ["u"], domain="own"), node("AffineGrid", "theta size", "grid"),
         node("ReduceSum", "grid", "g", keepdims=0), node("Mul", "u g", "y")],
        {"x": (3,)},
        {"theta": normal(2, 2, 3), "size": ints(2, 1, 2, 3)},
        opset=20,
    )  # fmt: skip
    made.functions.append(body)
    made.opset_import.append(helper.make_opsetid("own", 1))

    agree(made, {"x": normal(3)})


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    data = small().SerializeToString()
    (tmp_path / "junk.onnx").write_bytes(b"not a network")
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.onnx").write_bytes(b"")
    onnx.save(
        small(), tmp_path / "apart.onnx", save_as_external_data=True, size_threshold=0, location="gone.data"
    )
    (tmp_path / "gone.data").unlink()

    for name, message in (
        ("absent", "there is no such file"),
        ("junk", "cannot be read as ONNX"),
        ("cut", "cannot be read as ONNX"),
        ("empty", "holds no graph"),
        ("apart", "cannot be read with its external data"),
    ):
        with pytest.raises(ModelError, match=rf"{name}\.onnx: {message}"):
            load_model(str(tmp_path / f"{name}.onnx"))


def unsorted() -> onnx.ModelProto:
    made = small()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def with_short_weight() -> onnx.ModelProto:
    made = small()
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    return made


BROKEN = {
    "an operator of another domain": (
        lambda: model([helper.make_node("QAttention", ["x"], ["y"], domain="com.microsoft", name="n")], {"x": (1,)}, {}),
        r"node 'n' is the operator com\.microsoft::QAttention.*without the optimizations",
    ),
    "an operator that is not built": (
        lambda: model([node("NonMaxSuppression", "x z", "y", name="nms")], {"x": (1, 1, 4), "z": (1, 1, 1)}, {}),
        "node 'nms' is the operator NonMaxSuppression, which cannot be built. Replace it",
    ),
    "a misspelt operator": (
        lambda: model([node("Rellu", "x", "y")], {"x": (1,)}, {}),
        "operator Rellu, which cannot be built. Did you mean 'Relu'",
    ),
    "an old opset": (lambda: model([node("Relu", "x", "y")], {"x": (1,)}, {}, opset=6), "opset 6 is older than 7"),
    "nodes out of order": (unsorted, "is not a valid ONNX model .*sorted"),
    "a weight cut short": (with_short_weight, r"not a valid ONNX model .*conv1\.weight.* too small"),
    "text": (
        lambda: model([node("Equal", "x t", "y")], {"x": (1,)}, {"t": np.array(["a"], object)}, opset=19),
        "constant 't' holds strings",
    ),
    "constants that do not fit": (
        lambda: model([node("Add", "a b", "c"), node("Add", "x c", "y")], {"x": (1,)}, {"a": normal(2), "b": normal(3)}),
        r"node 'c' \(Add\) of constants fails",
    ),
    "lengths of sequences": (
        lambda: model(
            [node("LSTM", "x w r _ n", "y", hidden_size=4, name="l")],
            {"x": (5, 2, 3)},
            {"w": normal(1, 16, 3), "r": normal(1, 16, 4), "n": np.array([5, 4], np.int32)},
        ),
        r"node 'l' \(LSTM\): sequence_lens cannot be built",
    ),
    "a second output of a pool": (
        lambda: model([node("MaxPool", "x", "p y", kernel_shape=[2])], {"x": (1, 1, 4)}, {}, opset=12),
        r"node 'p' \(MaxPool\): output 2 \(y\) cannot be built",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_built_is_named(name):
    make, message = BROKEN[name]

    with pytest.raises(ModelError, match=message):
        from_onnx(make().SerializeToString())


def test_a_call_that_fails_names_the_node():
    network = from_onnx(small().SerializeToString())

    with pytest.raises(RuntimeError) as caught:
        network(torch.zeros(1, 4, 8, 8))

    assert caught.value.__notes__ == ["at node 'a' (Conv) of the ONNX graph"]
