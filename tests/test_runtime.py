"""The torch-free runtime: what it accepts, what it refuses, and what it says."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gossamer import artifact, runtime
from gossamer.errors import ArtifactError, HeaderError, LimitError, ModelError, OptionError
from gossamer.runtime import feed, plain
from gossamer.runtime import graph as graphs
from gossamer.runtime import protobuf as pb


def model_of(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def values(name, dtype, *shape):
    return helper.make_tensor_value_info(name, dtype, list(shape))


def dense(name, initializer, array, perm=None):
    floats = artifact.Floats(np.ascontiguousarray(array, np.float32))
    return artifact.Tensor(name, initializer, artifact.Stored("dense", array.shape, {"values": floats}), perm)


WEIGHT = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
BIAS = np.array([1, -2, 3], np.float32)


def linear(metadata=None) -> bytes:
    """x W^T + b, with the weight stored in the model's orientation and transposed when opened."""
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["0"]), helper.make_node("Add", ["0", "w1"], ["y"])]
    model = model_of(nodes, [values("x", 1, "batch", 6)], [values("y", 1, "batch", 3)])
    tensors = (dense("fc.weight", "w0", WEIGHT, (1, 0)), dense("fc.bias", "w1", BIAS))
    return artifact.to_bytes(artifact.Artifact(model.SerializeToString(), tensors, metadata or {}))


def mixed() -> bytes:
    """Two inputs (ids, mask) and two outputs, and no weight at all."""
    nodes = [helper.make_node("Cast", ["ids"], ["0"], to=1), helper.make_node("Mul", ["0", "mask"], ["a"])]
    nodes.append(helper.make_node("Neg", ["a"], ["b"]))
    inputs = [values("ids", TensorProto.INT64, "batch", 4), values("mask", 1, "batch", 4)]
    model = model_of(nodes, inputs, [values("a", 1, "batch", 4), values("b", 1, "batch", 4)])
    return artifact.to_bytes(artifact.Artifact(model.SerializeToString()))


def test_one_array_in_one_array_out():
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)

    np.testing.assert_allclose(runtime.open(linear())(x), x @ WEIGHT.T + BIAS, rtol=1e-5)


def test_ports_say_name_shape_and_type():
    session = runtime.open(linear())

    assert session.inputs == (runtime.Port("x", ("batch", 6), "float32"),)
    assert session.outputs == (runtime.Port("y", ("batch", 3), "float32"),)


@pytest.mark.parametrize("form", ["positions", "mapping", "names"])
def test_several_inputs_come_by_position_by_mapping_or_by_name(form):
    session = runtime.open(mixed())
    ids, mask = np.arange(8).reshape(2, 4), np.full((2, 4), 0.5, np.float32)

    if form == "positions":
        got = session(ids, mask)
    else:
        got = session({"mask": mask, "ids": ids}) if form == "mapping" else session(mask=mask, ids=ids)

    assert list(got) == ["a", "b"]
    np.testing.assert_array_equal(got["b"], -0.5 * ids)


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_floats_become_the_type_of_the_graph(kind):
    x = np.ones((2, 6), kind)

    assert runtime.open(linear())(x).dtype == np.float32


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64])
def test_any_integer_becomes_the_type_of_the_graph(kind):
    got = runtime.open(mixed())(np.ones((1, 4), kind), np.ones((1, 4), np.float32))

    assert got["a"].tolist() == [[1, 1, 1, 1]]


def test_arrays_in_any_memory_order_and_lists_are_read():
    x = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    session = runtime.open(linear())

    np.testing.assert_array_equal(session(x.T), session(x.T.tolist()))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.ones((2, 5), np.float32),
            r"input 'x': received float32 \[2, 5\], expected float32 \[batch, 6\]: axis 1",
        ),
        (np.ones(6, np.float32), r"1 dimensions instead of 2\. Add the batch dimension: x\[None\]"),
        (np.ones((1, 2, 6), np.float32), r"3 dimensions instead of 2\."),
        (np.ones((2, 6), np.uint8), r"received uint8 \[2, 6\].*Convert it first.*float32"),
        (np.array([["a"] * 6]), r"received <U1 \[1, 6\]"),
        ({"y": np.ones((2, 6), np.float32)}, r"the model has no input 'y'"),
        ({}, r"input 'x' is missing; the model takes x: float32 \[batch, 6\]"),
    ],
)
def test_an_input_that_does_not_fit_is_described(x, message):
    with pytest.raises(ModelError, match=message):
        runtime.open(linear())(x)


def test_too_many_missing_and_repeated_inputs_are_named():
    session = runtime.open(mixed())
    ids, mask = np.ones((2, 4), np.int64), np.ones((2, 4), np.float32)

    with pytest.raises(ModelError, match="3 inputs were given, but the model takes 2"):
        session(ids, mask, mask)
    with pytest.raises(ModelError, match="input 'mask' is missing"):
        session(ids)
    with pytest.raises(ModelError, match="input 'ids' was given twice"):
        session(ids, mask, ids=ids)


def test_inputs_must_agree_on_the_batch():
    with pytest.raises(ModelError, match="'batch' is 3 here, but 2 in input 'ids'"):
        runtime.open(mixed())(np.ones((2, 4), np.int64), np.ones((3, 4), np.float32))


def test_a_value_beyond_the_integer_type_is_refused():
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = model_of(nodes, [values("x", TensorProto.INT8, 2)], [values("y", TensorProto.INT8, 2)])
    session = runtime.open(artifact.to_bytes(artifact.Artifact(model.SerializeToString())))

    assert session(np.array([1, -128])).tolist() == [1, -128]
    with pytest.raises(ModelError, match="a value lies outside int8"):
        session(np.array([1, 128]))


def test_a_shape_that_only_the_graph_knows_is_the_callers_error():
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    model = model_of(nodes, [values("a", 1, "n"), values("b", 1, "m")], [values("y", 1, "k")])
    session = runtime.open(artifact.to_bytes(artifact.Artifact(model.SerializeToString())))

    with pytest.raises(ModelError, match="does not run on this input"):
        session(np.ones(2, np.float32), np.ones(3, np.float32))


def test_metadata_is_at_hand():
    session = runtime.open(
        linear({"labels": ["a", "b"], "preprocess": {"mean": 0.1}, "notes": ["n"], "more": 1})
    )

    assert (session.labels, session.preprocess, session.notes) == (["a", "b"], {"mean": 0.1}, ["n"])
    assert session.metadata["more"] == 1


def test_explain_has_a_row_for_each_layer_with_a_weight():
    (row,) = runtime.open(linear()).explain()

    assert (row.op, row.weight, row.shape, row.layout) == ("MatMul", "fc.weight", (3, 6), "dense")
    assert row.kernel == "onnxruntime dense"


def test_explain_follows_a_weight_through_a_transpose():
    nodes = [helper.make_node("Transpose", ["w0"], ["0"]), helper.make_node("MatMul", ["x", "0"], ["y"])]
    model = model_of(nodes, [values("x", 1, "batch", 6)], [values("y", 1, "batch", 3)])
    packed = artifact.Artifact(model.SerializeToString(), (dense("fc.weight", "w0", WEIGHT),))

    assert [row.op for row in runtime.open(artifact.to_bytes(packed)).explain()] == ["MatMul"]


@pytest.mark.parametrize("rounded", [True, False])
def test_explain_follows_integers_to_the_layer_that_reads_them(rounded):
    codes = artifact.Stored(
        "integers", (3, 6), {"codes": artifact.Ints(np.arange(18, dtype=np.uint8), 8)}, options={"offset": 9}
    )
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["0"]),
        helper.make_node("DequantizeLinear", ["0", "s", "z"], ["1"]),
        helper.make_node("DequantizeLinear", ["w0", "w1"], ["2"], axis=0),
        helper.make_node("Transpose", ["2"], ["3"], perm=[1, 0]),
        helper.make_node("MatMul", ["1" if rounded else "x", "3"], ["y"]),
    ]
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "s")
    zero = onnx.numpy_helper.from_array(np.uint8(7), "z")
    model = model_of(nodes, [values("x", 1, "batch", 6)], [values("y", 1, "batch", 3)], [scale, zero])
    tensors = (
        artifact.Tensor("fc.weight", "w0", codes, None, "int8"),
        dense("w1", "w1", np.ones(3, np.float32)),
    )
    packed = artifact.to_bytes(artifact.Artifact(model.SerializeToString(), tensors))

    (row,) = runtime.open(packed).explain()

    assert (row.op, row.weight, row.shape, row.layout) == ("MatMul", "fc.weight", (3, 6), "integers")
    assert row.kernel == ("onnxruntime integers" if rounded else "onnxruntime dense")
    assert ("input is not rounded" in row.why) != rounded


def test_explain_names_the_operator_that_reads_packed_codes():
    packed = artifact.Stored("integers", (3, 1, 16), {"codes": artifact.Ints(np.zeros(48, np.uint8), 8)})
    node = helper.make_node(
        "MatMulNBits", ["x", "w0", "w1"], ["y"], domain="com.microsoft", K=32, N=3, bits=4, block_size=32
    )
    model = model_of([node], [values("x", 1, "batch", 32)], [values("y", 1, "batch", 3)])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    tensors = (
        artifact.Tensor("fc.weight", "w0", packed, None, "uint8"),
        dense("w1", "w1", np.ones(3, np.float32)),
    )

    (row,) = runtime.open(artifact.to_bytes(artifact.Artifact(model.SerializeToString(), tensors))).explain()

    assert (row.op, row.weight, row.kernel) == ("MatMulNBits", "fc.weight", "onnxruntime packed")


def test_unpacked_weights_are_those_of_the_file(tmp_path):
    content = runtime.unpack(linear())
    size = runtime.unpack_to(linear(), tmp_path / "m.onnx")

    onnx.checker.check_model(content, full_check=True)
    assert (tmp_path / "m.onnx").read_bytes() == content
    assert size == len(content)
    held = {
        item.name: onnx.numpy_helper.to_array(item)
        for item in onnx.load_from_string(content).graph.initializer
    }
    np.testing.assert_array_equal(held["w0"], WEIGHT.T)
    np.testing.assert_array_equal(held["w1"], BIAS)


def test_more_than_protobuf_can_hold_is_refused_before_any_weight_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "MAX_PROTOBUF", 100)

    with pytest.raises(LimitError, match="one protobuf file ends at"):
        runtime.unpack_to(linear(), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_session_lives_on_when_its_file_is_gone(tmp_path):
    path = tmp_path / "m.goss"
    path.write_bytes(linear())
    session = runtime.open(path)
    path.unlink()

    for _ in range(3):
        noise = [np.full((3, 6), np.nan, np.float32) for _ in range(50)]  # reuses whatever memory was freed
        assert np.isfinite(session(np.ones((2, 6), np.float32))).all()
        del noise


def test_large_weights_go_through_a_file_that_is_gone_afterwards(tmp_path, monkeypatch):
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    in_memory = runtime.open(linear())(x)
    monkeypatch.setattr(feed, "SPILL", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    session = runtime.open(linear())

    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(session(x), in_memory)


def test_large_weights_are_kept_in_memory_where_no_file_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "SPILL", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    assert runtime.open(linear())(np.zeros((2, 6), np.float32)).tolist() == [BIAS.tolist()] * 2


def test_a_graph_may_not_point_outside_the_file():
    outside = TensorProto(dims=[6], data_type=1, name="b", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secret.bin")
    inputs, outputs = [values("x", 1, "batch", 6)], [values("y", 1, "batch", 6)]
    direct = model_of([helper.make_node("Add", ["x", "b"], ["y"])], inputs, outputs, [outside])
    constant = helper.make_node("Constant", [], ["b"], value=outside)
    within = model_of([constant, helper.make_node("Add", ["x", "b"], ["y"])], inputs, outputs)

    for model in (direct, within):
        content = artifact.to_bytes(artifact.Artifact(model.SerializeToString()))
        with pytest.raises(HeaderError, match="points to data outside the file"):
            runtime.open(content)
        with pytest.raises(HeaderError, match="points to data outside the file"):
            runtime.unpack(content)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x3a\x05abc", b"not a graph at all", b"\x08\x0a"])
def test_bytes_that_are_no_graph_are_refused(content):
    with pytest.raises(ArtifactError):
        runtime.open(artifact.to_bytes(artifact.Artifact(content)))


def test_a_graph_that_misses_a_weight_is_refused():
    model = model_of([helper.make_node("Add", ["x", "w9"], ["y"])], [values("x", 1, 2)], [values("y", 1, 2)])

    with pytest.raises(ArtifactError, match="ONNX Runtime refuses the graph"):
        runtime.open(artifact.to_bytes(artifact.Artifact(model.SerializeToString())))


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(OptionError, match="threads is 0"):
        runtime.open(linear(), threads=0)
    with pytest.raises(LimitError):
        runtime.open(linear(), max_bytes=8)
    with pytest.raises(ArtifactError, match="cannot be opened"):
        runtime.open(tmp_path / "missing.goss")


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_protobuf_fields_are_those_of_the_official_library(number):
    official = TensorProto(raw_data=b"xy", name="n", data_type=1)
    official.dims.append(number % 2**63)

    ours = list(pb.fields(official.SerializeToString()))

    assert (1, number % 2**63) in [(key, value) for key, value in ours if isinstance(value, int)] or ours[0][
        0
    ] == 1
    assert TensorProto.FromString(pb.integer(1, number % 2**63) + pb.message(8, b"n")).dims == [
        number % 2**63
    ]


def test_nodes_are_read_as_the_official_library_reads_them():
    official = onnx.ModelProto.FromString(runtime.unpack(linear()))

    ours = graphs.nodes(graphs.split(official.SerializeToString())[1])

    assert [(node.op, list(node.inputs), list(node.outputs)) for node in ours] == [
        (node.op_type, list(node.input), list(node.output)) for node in official.graph.node
    ]


def test_opening_and_running_import_neither_torch_nor_onnx(tmp_path):
    path = tmp_path / "m.goss"
    path.write_bytes(linear())
    script = (
        "import sys, numpy as np, gossamer as gs\n"
        "y = gs.open(sys.argv[1])(np.ones((2, 6), np.float32))\n"
        "gs.unpack(sys.argv[1])\n"
        "print(y.shape, [name for name in ('torch', 'onnx', 'onnxscript') if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "(2, 3) []"
