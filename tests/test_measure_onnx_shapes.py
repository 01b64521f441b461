"""Shapes of an ONNX graph: free axes, what is refused, and what only a run can tell."""

from __future__ import annotations

import numpy as np
import pytest

from gossamer import artifact
from gossamer.errors import MeasureError, OptionError
from gossamer.measure.onnx.graph import input_names, record_goss, record_onnx
from onnx_samples import data, model, node, normal, total, uncounted


def test_free_axes_are_one_unless_given():
    made = data([node("Conv", "x w")], {"x": ("batch", 3, "length")}, {"w": normal(4, 3, 1)})

    alone, given = record_onnx(made), record_onnx(made, {"x": (2, 3, 50)})

    assert alone.inputs == {"x": ("float32", (1, 3, 1))}
    assert "free axes (length) were taken as 1" in alone.notes[0]
    assert (total(alone).macs, total(given).macs) == (12, 12 * 100)
    assert not given.notes


def test_one_name_of_an_axis_is_one_size_over_all_inputs():
    made = data([node("MatMul", "x z")], {"x": ("batch", 3, "k"), "z": ("batch", "k", 5)})

    recorded = record_onnx(made, {"x": (2, 3, 7)})

    assert recorded.inputs["z"] == ("float32", (2, 7, 5))
    assert total(recorded).macs == 2 * 3 * 7 * 5


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (
            {"y": (1, 3, 8)},
            "no input 'y'.*The model takes x: float32 .batch, 3, k., z: float32 .batch, k, 5.",
        ),
        ({"x": (1, 3)}, "2 axes instead of 3"),
        ({"x": (1, 4, 8)}, "axis 1 is fixed at 3, not 4"),
        ({"x": (2, 3, 8), "z": (1, 8, 5)}, "axis 0 is 'batch', elsewhere 2, not 1"),
        ({"x": (0, 3, 8)}, "whole numbers of at least 1"),
        ({"x": (1, 3, 8.5)}, "whole numbers of at least 1"),
    ],
)
def test_a_shape_that_an_input_cannot_have_is_refused(shapes, said):
    made = data([node("MatMul", "x z")], {"x": ("batch", 3, "k"), "z": ("batch", "k", 5)})

    with pytest.raises(OptionError, match=said):
        record_onnx(made, shapes)


def test_inputs_that_the_operators_do_not_fit_are_refused_with_the_reason():
    made = data([node("Flatten", "x", "f"), node("Gemm", "f w")], {"x": (1, "c", 4)}, {"w": normal(12, 5)})

    assert total(record_onnx(made, {"x": (1, 3, 4)})).macs == 60
    with pytest.raises(
        MeasureError, match=r"do not fit together for inputs x \[1, 2, 4\].*Give other shapes"
    ):
        record_onnx(made, {"x": (1, 2, 4)})


def test_an_input_that_says_no_shape_must_be_given_one():
    made = model([node("Relu", "x")], {"x": (1,)})
    made.graph.input[0].type.tensor_type.ClearField("shape")

    with pytest.raises(OptionError, match="says no shape"):
        record_onnx(made.SerializeToString())
    assert total(record_onnx(made.SerializeToString(), {"x": (2, 3)})).other_ops == {"compare": 6}


def test_shapes_that_only_running_can_tell_are_those_of_one_run():
    nodes = [
        node("NonZero", "x", "i"),
        node("Transpose", "i", "t"),
        node("GatherND", "x t", "g"),
        node("Exp", "g"),
    ]

    recorded = record_onnx(data(nodes, {"x": (3, 4)}))

    assert not uncounted(recorded)
    assert total(recorded).other_ops == {"transcendental": 12}  # no random number is 0
    assert recorded.notes == (
        "shapes read off one run on random inputs, because they cannot be inferred (NonZero): 4",
    )


def test_a_packed_file_is_run_too_where_only_running_can_tell(tmp_path):
    weight = artifact.Stored("dense", (4, 5), {"values": artifact.Floats(normal(4, 5), "float32")})
    nodes = [node("Compress", "x keep", "c", axis=0), node("MatMul", "c w0")]
    made = model(nodes, {"x": (6, 4), "w0": (4, 5)}, {"keep": np.array([1, 0, 1, 1, 0, 0], bool)})
    del made.graph.input[1]
    (tmp_path / "m.goss").write_bytes(
        artifact.to_bytes(
            artifact.Artifact(made.SerializeToString(), (artifact.Tensor("fc.weight", "w0", weight),))
        )
    )

    recorded = record_goss(tmp_path / "m.goss")

    assert input_names(tmp_path / "m.goss") == ("x",)
    assert total(recorded).macs == 3 * 4 * 5
    assert recorded.weights[0].name == "fc.weight"


def test_an_index_is_zero_where_one_is_too_large():
    nodes = [node("Gather", "w x", "g"), node("NonZero", "g", "y")]

    recorded = record_onnx(data(nodes, {"x": np.zeros((3,), np.int64)}, {"w": normal(1, 4)}))

    assert recorded.schedule.operations[1].output_shape == (2, 12)
