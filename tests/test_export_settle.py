"""Quantization moved through a graph: the same values to the last bit, by operators on codes."""

from __future__ import annotations

import collections

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from gossamer.export.settle import settle
from quantized_samples import options

SHAPE = (2, 8, 6, 6)
FINE, COARSE, HALF = (0.02, 100), (0.5, 7), (0.015, 0)  # step and zero point


class Draft:
    """A graph under construction; `x` is its input, quantized once."""

    def __init__(self):
        self.x = ir.Value(name="x", shape=ir.Shape(SHAPE), type=ir.TensorType(ir.DataType.FLOAT))
        self.graph = ir.Graph([self.x], [], nodes=[], opset_imports={"": 20}, name="g")
        self.count = 0

    def constant(self, values) -> ir.Value:
        self.count += 1
        tensor = ir.tensor(values, name=f"c{self.count}")
        value = ir.Value(name=tensor.name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        self.graph.register_initializer(value)
        return value

    def add(self, kind, *inputs, outputs=1, **attributes):
        given = [self.constant(value) if isinstance(value, np.ndarray) else value for value in inputs]
        node = ir.node(kind, given, attributes, num_outputs=outputs)
        self.graph.append(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def rounded(self, value, grid=FINE, top=255):
        step, zero = np.array(grid[0], np.float32), np.array(grid[1], np.uint8)
        codes = self.add("QuantizeLinear", value, step, zero)
        if top < 255:
            codes = self.add("Clip", codes, None, np.array(top, np.uint8))
        return self.add("DequantizeLinear", codes, step, zero)

    def layer(self, value, seed=0):
        """A layer without constants of interest: something that is not a move."""
        return self.add("Sin", self.add("Add", value, np.array(0.1 + seed, np.float32)))

    def finished(self, *outputs):
        for value in outputs:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            self.graph.outputs.append(value)
        return ir.Model(self.graph, ir_version=10)


def run(model):
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32) * 2
    chosen = options()
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(data, chosen, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def settled(model):
    """(operators afterwards, in order), with the outputs compared bit for bit."""
    before = run(model)

    assert settle(model)

    for one, two in zip(before, run(model), strict=True):
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    return [node.op_type for node in model.graph]


def on_codes(model):
    """The moving operators that read or write integers."""
    return [
        node.op_type
        for node in model.graph
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and any(value.dtype == ir.DataType.UINT8 for value in (*node.inputs[:1], *node.outputs) if value)
    ]


def ints(*values):
    return np.array(values, np.int64)


MOVES = {
    "MaxPool": lambda d, x: d.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "Slice": lambda d, x: d.add("Slice", x, ints(1), ints(5), ints(2), ints(2)),
    "Gather": lambda d, x: d.add("Gather", x, ints(3, 0, 0), axis=1),
    "GatherND": lambda d, x: d.add("GatherND", x, np.array([[1, 3], [0, 0]], np.int64)),
    "GatherElements": lambda d, x: d.add("GatherElements", x, np.ones((2, 8, 6, 3), np.int64), axis=3),
    "Reshape": lambda d, x: d.add("Reshape", x, ints(0, 4, 2, -1)),
    "Flatten": lambda d, x: d.add("Flatten", x),
    "Transpose": lambda d, x: d.add("Transpose", x, perm=[0, 2, 3, 1]),
    "Unsqueeze": lambda d, x: d.add("Unsqueeze", x, ints(1)),
    "Squeeze": lambda d, x: d.add("Squeeze", d.add("Slice", x, ints(0), ints(1), ints(1)), ints(1)),
    "Expand": lambda d, x: d.add("Expand", x, ints(3, 1, 1, 1, 1)),
    "Tile": lambda d, x: d.add("Tile", x, ints(1, 2, 1, 1)),
    "ReduceMax": lambda d, x: d.add("ReduceMax", x, ints(2, 3), keepdims=0),
    "Pad": lambda d, x: d.add("Pad", x, ints(0, 2, 1, 0, 0, 2, 0, 1)),
    "Pad with a number": lambda d, x: d.add(
        "Pad", x, ints(0, 0, 1, 1, 0, 0, 1, 1), np.array(0.5, np.float32)
    ),
    "Pad by reflection": lambda d, x: d.add("Pad", x, ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
    "Resize": lambda d, x: d.add(
        "Resize",
        x,
        None,
        np.array([1, 1, 2, 2], np.float32),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
    "Relu": lambda d, x: d.add("Relu", x),
    "Clip": lambda d, x: d.add("Clip", x, np.array(-0.5, np.float32), np.array(1.0, np.float32)),
    "Clip from below": lambda d, x: d.add("Clip", x, np.array(-1.0, np.float32)),
}


@pytest.mark.parametrize("case", MOVES)
@pytest.mark.parametrize("grid", [FINE, COARSE, HALF], ids=str)
def test_quantize_goes_up_past_what_moves_values(case, grid):
    draft = Draft()
    moved = MOVES[case](draft, draft.layer(draft.x))
    model = draft.finished(draft.rounded(moved, grid))

    ops = settled(model)

    assert ops[:3] == ["Add", "Sin", "QuantizeLinear"]
    assert ops[-1] == "DequantizeLinear"
    assert set(ops[3:-1]) <= {*on_codes(model), "Clip"}


@pytest.mark.parametrize("case", MOVES)
@pytest.mark.parametrize("grid", [FINE, COARSE], ids=str)
def test_dequantize_goes_down_past_what_moves_values(case, grid):
    draft = Draft()
    model = draft.finished(draft.layer(MOVES[case](draft, draft.rounded(draft.x, grid))))

    ops = settled(model)

    assert ops[0] == "QuantizeLinear"
    assert ops[-3:] == ["DequantizeLinear", "Add", "Sin"]
    assert set(ops[1:-3]) <= {*on_codes(model), "Clip"}


@pytest.mark.parametrize("kinds", [("DepthToSpace", "SpaceToDepth"), ("SpaceToDepth", "DepthToSpace")])
def test_a_pixel_shuffle_is_put_between_quantization(kinds):
    draft = Draft()
    there = draft.rounded(draft.add(kinds[0], draft.layer(draft.x), blocksize=2))
    model = draft.finished(draft.layer(draft.add(kinds[1], there, blocksize=2)))

    ops = settled(model)

    between = [op for kind in kinds for op in ("DequantizeLinear", kind, "QuantizeLinear")]
    assert ops == ["Add", "Sin", "QuantizeLinear", *between, "DequantizeLinear", "Add", "Sin"]


@pytest.mark.parametrize(
    ("low", "high", "grid", "top", "clips"),
    [
        (0.0, None, (0.01, 0), 255, []),  # uint8 ends at 0 by itself
        (0.0, None, (0.01, 60), 255, [(60, None)]),
        (0.0, 6.0, (6 / 255, 0), 255, []),
        (0.0, 6.0, (0.05, 0), 255, [(None, 120)]),
        (0.0, 6.0, (0.4, 0), 15, [(None, 15)]),  # two bounds are one
        (0.0, 3.0, (0.5, 2), 15, [(2, 8)]),
        (0.0, 0.625, (0.25, 3), 255, [(3, 5)]),  # half to even, before the zero point is added
        (-9.0, 9.0, (0.01, 100), 255, []),
    ],
)
def test_a_bound_before_quantize_is_a_bound_of_codes_where_it_matters(low, high, grid, top, clips):
    draft = Draft()
    bounds = [None if bound is None else np.array(bound, np.float32) for bound in (low, high)]
    bounded = draft.add("Clip", draft.layer(draft.x), *bounds)
    model = draft.finished(draft.rounded(bounded, grid, top))

    settled(model)

    found = [node for node in model.graph if node.op_type == "Clip"]
    values = [
        [None if value is None else int(value.const_value.numpy()) for value in (*node.inputs[1:], None)[:2]]
        for node in found
    ]
    assert [tuple(pair) for pair in values] == clips


def test_a_bound_between_two_codes_stays_in_floats_behind_dequantize():
    draft = Draft()
    bounded = draft.add("Clip", draft.rounded(draft.x, COARSE), None, np.array(0.7, np.float32))
    model = draft.finished(bounded)

    assert settled(model) == ["QuantizeLinear", "DequantizeLinear", "Clip"]


@pytest.mark.parametrize("kind", ["Resize", "Sin"])
def test_what_computes_new_values_stays_where_it_is(kind):
    draft = Draft()
    given = draft.layer(draft.x)
    if kind == "Resize":
        value = draft.add("Resize", given, None, np.array([1, 1, 2, 2], np.float32), mode="linear")
    else:
        value = draft.add(kind, given)
    model = draft.finished(draft.rounded(value))

    assert settled(model) == ["Add", "Sin", kind, "QuantizeLinear", "DequantizeLinear"]


def test_a_value_that_somebody_else_reads_is_not_quantized_for_him():
    draft = Draft()
    positive = draft.add("Relu", draft.layer(draft.x))
    model = draft.finished(draft.rounded(positive), draft.layer(positive))

    ops = settled(model)

    assert ops.index("Relu") < ops.index("QuantizeLinear")


def test_every_reader_of_a_quantized_value_sees_it_dequantized():
    draft = Draft()
    value = draft.rounded(draft.x)
    pooled = draft.add("MaxPool", value, kernel_shape=[2, 2])
    model = draft.finished(draft.layer(value), draft.layer(pooled, 1), draft.add("Flatten", pooled))

    counts = collections.Counter(settled(model))

    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (1, 3)
    assert on_codes(model) == ["MaxPool", "Flatten"]


def test_a_split_hands_codes_to_every_reader():
    draft = Draft()
    left, right = draft.add("Split", draft.rounded(draft.x), axis=1, num_outputs=2, outputs=2)
    model = draft.finished(draft.layer(left), draft.add("Concat", right, left, axis=1))

    settled(model)

    assert on_codes(model) == ["Split", "Concat"]


def test_a_second_quantizer_on_the_same_grid_vanishes():
    draft = Draft()
    pooled = draft.add("MaxPool", draft.rounded(draft.x), kernel_shape=[2, 2])
    model = draft.finished(draft.rounded(pooled))

    assert settled(model) == ["QuantizeLinear", "MaxPool", "DequantizeLinear"]


def test_a_second_quantizer_on_another_grid_stays_behind_the_pooling():
    draft = Draft()
    pooled = draft.add("MaxPool", draft.rounded(draft.x, COARSE), kernel_shape=[2, 2])
    model = draft.finished(draft.rounded(pooled))

    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert settled(model) == ["QuantizeLinear", "MaxPool", "DequantizeLinear", *pair]


@pytest.mark.parametrize("twice", [False, True])
def test_a_concat_gives_its_grid_to_inputs_that_have_none(twice):
    draft = Draft()
    left = draft.add("Relu", draft.layer(draft.x))
    right = left if twice else draft.add("Relu", draft.layer(draft.x, 1))
    model = draft.finished(draft.rounded(draft.add("Concat", left, right, axis=1), HALF))

    counts = collections.Counter(settled(model))

    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (1 if twice else 2, 1)
    assert on_codes(model) == ["Concat"]
    assert counts["Relu"] == 0


@pytest.mark.parametrize("second", [FINE, COARSE, None], ids=str)
def test_a_concat_of_quantized_inputs_keeps_their_grids(second):
    draft = Draft()
    right = draft.layer(draft.x)
    right = right if second is None else draft.rounded(right, second)
    joined = draft.add("Concat", draft.rounded(draft.x, FINE), right, axis=1)
    model = draft.finished(draft.rounded(joined, COARSE))

    ops = settled(model)

    at = ops.index("Concat")
    kinds = [node.producer().op_type for node in list(model.graph)[at].inputs]
    assert kinds == (["QuantizeLinear"] * 2 if second == FINE else ["DequantizeLinear"] * 2)


def test_a_graph_without_quantization_is_left_alone():
    draft = Draft()
    model = draft.finished(draft.add("Relu", draft.x))

    assert not settle(model)
    assert [node.op_type for node in model.graph] == ["Relu"]
