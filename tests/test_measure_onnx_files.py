"""ONNX files of every kind: external data, functions, quantized and optimized models, and damage."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization

from gossamer.errors import GossamerError, MeasureError
from gossamer.measure.onnx.graph import input_names, record_onnx
from onnx_samples import data, model, node, normal, ops, total, trained, uncounted


def test_external_data_is_found_beside_the_model(tmp_path):
    weight = normal(40, 50)
    weight[:10] = 0
    made = model([node("MatMul", "x fc.weight")], {"x": (3, 40)}, {"fc.weight": weight})
    path = tmp_path / "m.onnx"
    onnx.save(made, path, save_as_external_data=True, location="m.data", size_threshold=0)

    recorded = record_onnx(path)

    (stored,) = recorded.weights
    assert (stored.numel, stored.nonzero, stored.stored_bytes) == (2000, 1500, 8000)
    assert total(recorded).macs_nonzero == 3 * 1500
    assert input_names(path) == ("x",)
    with pytest.raises(MeasureError, match="bytes have no folder"):
        record_onnx(path.read_bytes())
    (tmp_path / "m.data").unlink()
    with pytest.raises(MeasureError, match=r"external data of initializer 'fc.weight'.*beside the model"):
        record_onnx(path)


def test_a_model_with_external_data_is_run_where_only_running_can_tell(tmp_path):
    nodes = [node("NonZero", "w", "i"), node("Transpose", "i", "t"), node("GatherND", "x t", "y")]
    made = model(nodes, {"x": (3, 4, 5)}, {"w": np.eye(3, 4, dtype=np.float32)})
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)

    recorded = record_onnx(tmp_path / "m.onnx")

    assert recorded.schedule.operations[-1].output_shape == (3, 5)


def test_local_functions_are_written_out():
    body = helper.make_function(
        "my.own",
        "Layer",
        ["x", "w"],
        ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        [helper.make_opsetid("", 23)],
    )
    made = data([node("Layer", "x w", domain="my.own")], {"x": (3, 7)}, {"w": normal(7, 5)}, functions=[body])

    recorded = record_onnx(made)

    assert ops(recorded) == ["MatMul", "Relu"]


def test_initialisers_that_are_inputs_too_are_weights():
    made = model([node("MatMul", "x w")], {"x": (3, 7), "w": (7, 5)}, {"w": normal(7, 5)})

    recorded = record_onnx(made.SerializeToString())

    assert list(recorded.inputs) == ["x"]
    assert trained(recorded) == 35


def test_sparse_initialisers_count_what_they_stand_for():
    made = model([node("MatMul", "x w")], {"x": (3, 7)})
    values = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    indices = onnx.numpy_helper.from_array(np.array([0, 11, 30]), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [7, 5]))

    recorded = record_onnx(made.SerializeToString())

    (weight,) = recorded.weights
    assert (weight.numel, weight.nonzero, weight.stored_bytes) == (35, 3, 12 + 24)
    assert total(recorded).macs_nonzero == 9


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no graph"), (b"\x00damaged", "no ONNX model"), (b"PK\x03\x04" * 9, "no ONNX model")],
)
def test_bytes_that_are_no_model_are_refused(content, said, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)

    with pytest.raises(MeasureError, match=rf"m\.onnx: .*{said}"):
        record_onnx(tmp_path / "m.onnx")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(MeasureError, match="cannot be read"):
        record_onnx(tmp_path / "missing.onnx")


def test_a_truncated_file_is_refused():
    whole = data([node("MatMul", "x w")], {"x": (3, 40)}, {"w": normal(40, 50)})

    with pytest.raises(MeasureError, match="damaged"):
        record_onnx(whole[: len(whole) // 2])


def test_an_initialiser_with_missing_bytes_is_refused():
    made = model([node("MatMul", "x w")], {"x": (3, 40)}, {"w": normal(40, 50)})
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]

    with pytest.raises(MeasureError, match=r"initializer 'w' of shape .40, 50. is damaged"):
        record_onnx(made.SerializeToString())


def test_changed_bytes_are_counted_or_refused_and_nothing_else():
    nodes = [node("Conv", "x c.weight b", "a"), node("Flatten", "a", "f"), node("Gemm", "f d.weight")]
    held = {"c.weight": normal(4, 3, 3), "b": normal(4), "d.weight": normal(24, 5)}
    whole = data(nodes, {"x": ("batch", 3, 8)}, held)
    rng = np.random.default_rng(0)
    refused = 0

    for _ in range(300):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            changed[at] = rng.integers(256)
        try:
            record_onnx(bytes(changed))
        except GossamerError:
            refused += 1

    assert 0 < refused < 300


def test_a_name_that_is_no_text_is_damage(tmp_path):
    whole = data([node("Relu", "ghost")], {"ghost": (3,)})
    (tmp_path / "m.onnx").write_bytes(whole.replace(b"ghost", b"gh\xffst"))

    with pytest.raises(MeasureError, match="a name in it is no text"):
        record_onnx(tmp_path / "m.onnx")


def test_a_type_that_onnx_does_not_have_is_damage():
    made = model([node("Relu", "x")], {"x": (3,)})
    made.graph.input[0].type.tensor_type.elem_type = 99

    with pytest.raises(MeasureError, match="type number 99"):
        record_onnx(made.SerializeToString())


def test_a_value_that_nothing_writes_is_damage():
    with pytest.raises(MeasureError, match="'ghost'"):
        record_onnx(data([node("Add", "x ghost")], {"x": (3, 4)}))


def test_an_input_that_is_no_tensor_is_refused():
    made = model([node("SequenceLength", "s")], {"s": (1,)})
    made.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))

    with pytest.raises(MeasureError, match="input 's' is a sequence_type, expected a tensor"):
        record_onnx(made.SerializeToString())


# quantized models


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory) -> onnx.ModelProto:
    nodes = [
        node("Conv", "x c.weight c.bias", "a", name="c", pads=[1] * 4),
        node("Relu", "a", "b", name="r"),
        node("GlobalAveragePool", "b", "g", name="g"),
        node("Flatten", "g", "f", name="f"),
        node("Gemm", "f d.weight d.bias", "y", name="d", transB=1),
    ]
    held = {
        "c.weight": normal(4, 3, 3, 3),
        "c.bias": normal(4),
        "d.weight": normal(5, 4),
        "d.bias": normal(5),
    }
    made = model(nodes, {"x": (1, 3, 8, 8)}, held, opset=20)
    return onnx.shape_inference.infer_shapes(made)


class Batches(quantization.CalibrationDataReader):
    """Three random batches."""

    def __init__(self) -> None:
        self._left = [normal(1, 3, 8, 8, seed=seed) for seed in range(3)]

    def get_next(self):
        return {"x": self._left.pop()} if self._left else None


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_quantized_model_has_the_macs_of_its_float_original(form, per_channel, convolutional, tmp_path):
    original = record_onnx(convolutional.SerializeToString())
    path = tmp_path / "quantized.onnx"
    logging.disable(logging.CRITICAL)
    quantization.quantize_static(
        convolutional, path, Batches(), quant_format=quantization.QuantFormat[form], per_channel=per_channel
    )
    logging.disable(logging.NOTSET)

    recorded = record_onnx(path)

    assert not uncounted(recorded)
    assert total(recorded).macs == total(original).macs == 108 * 64 + 20
    assert total(recorded).bias_adds == total(original).bias_adds
    kept = {weight.name.removesuffix("_quantized"): weight for weight in recorded.weights if weight.trained}
    assert {name: weight.numel for name, weight in kept.items()} == {
        weight.name: weight.numel for weight in original.weights
    }
    weight = kept["c.weight"]
    assert (weight.dense_bytes, weight.stored_bytes, weight.layer) == (432, 108, "c")


def test_a_dynamically_quantized_model_has_the_macs_of_its_float_original(convolutional, tmp_path):
    path = tmp_path / "quantized.onnx"
    logging.disable(logging.CRITICAL)
    quantization.quantize_dynamic(convolutional, path)
    logging.disable(logging.NOTSET)

    recorded = record_onnx(path)

    assert {"ConvInteger", "MatMulInteger"} <= set(ops(recorded))
    assert total(recorded).macs == 108 * 64 + 20


def test_an_integer_is_zero_where_it_equals_its_zero_point():
    q = np.array([[3, 5, 0], [5, 5, 7]], np.uint8)
    nodes = [node("DequantizeLinear", "q s z", "w", axis=0), node("MatMul", "x w")]
    held = {"q": q, "s": np.ones(2, np.float32), "z": np.array([3, 5], np.uint8)}

    recorded = record_onnx(data(nodes, {"x": (4, 2)}, held))

    weight = next(weight for weight in recorded.weights if weight.name == "q")
    assert weight.nonzero == 3  # 5, 0 against 3; 7 against 5
    assert total(recorded).macs_nonzero == 24 * 3 // 6
    assert [weight.trained for weight in recorded.weights] == [True, False, False]


def test_an_optimized_model_of_onnx_runtime_is_counted(convolutional, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        convolutional.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    recorded = record_onnx(tmp_path / "o.onnx")

    assert "FusedConv" in ops(recorded)
    assert not uncounted(recorded)
    original = total(record_onnx(convolutional.SerializeToString()))
    assert (total(recorded).flops, total(recorded).other_ops) == (original.flops, original.other_ops)
    assert (
        total(recorded).traffic_bytes == original.traffic_bytes - 2 * 4 * 8 * 8 * 4
    )  # what was between the two
