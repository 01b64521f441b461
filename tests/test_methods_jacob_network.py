"""The engine of integers: exact where a loop can be written, and one step at most from ONNX Runtime elsewhere."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from gossamer.data import load_data
from gossamer.errors import ModelError
from gossamer.export import pack
from gossamer.methods.jacob import IntegerNetwork
from gossamer.methods.jacob.agreement import Agreement, end_to_end, layer_by_layer, run_engine
from gossamer.models import load_model
from gossamer.runtime import unpack
from gossamer.steps import FreezeNorms, apply
from test_methods_jacob import half_away, lite


class Graph:
    """A small QDQ graph, built call by call; every method returns the name of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def quantized(self, x: str, scale: float, zero: Any) -> str:
        grid = (self.constant(np.float32(scale)), self.constant(zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *grid), *grid)

    def weight(self, codes: np.ndarray, scale: Any, zero: Any = None, axis: int = 0) -> str:
        given = [self.constant(codes), self.constant(np.asarray(scale, np.float32))]
        return self.op(
            "DequantizeLinear", *given, *([] if zero is None else [self.constant(zero)]), axis=axis
        )

    def model(self, shape: tuple[int, ...], *outputs: str) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 18)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def codes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def agree(model: bytes, x: np.ndarray, *, fused: bool = True) -> list[Agreement]:
    """Layer by layer against ONNX Runtime."""
    network = IntegerNetwork(model)
    inputs = {network.inputs[0]: x}
    return layer_by_layer(network, inputs, run_engine(model, inputs, fused=fused).codes)


def test_a_convolution_equals_the_loop_of_the_paper_bit_for_bit():
    g, rng = Graph(), np.random.default_rng(0)
    w, bias = codes(6, 2, 3, 3), rng.integers(-4000, 4000, 6).astype(np.int32)
    scales = rng.uniform(0.001, 0.02, 6).astype(np.float32)
    x = g.quantized("x", 0.03, np.uint8(115))
    b = g.weight(bias, (np.float64(np.float32(0.03)) * scales).astype(np.float32))
    y = g.op("Conv", x, g.weight(w, scales), b, group=2, strides=[2, 1], pads=[1, 0, 1, 2])
    model = g.model((4, 7, 6), g.quantized(g.op("Relu", y), 0.05, np.uint8(9)))
    network, given = IntegerNetwork(model), normal(2, 4, 7, 6)

    run = network.run({"x": given})

    first, last = run.codes.values()
    assert first.tolist() == np.clip(np.rint(given / np.float32(0.03)) + 115, 0, 255).tolist()
    padded = np.pad(first.astype(int), ((0, 0), (0, 0), (1, 1), (0, 2)), constant_values=115)
    for n, o, i, j in np.ndindex(*last.shape):
        own = padded[n, o // 3 * 2 : o // 3 * 2 + 2, 2 * i : 2 * i + 3, j : j + 3]
        acc = int(((own - 115) * w[o].astype(int)).sum()) + int(bias[o])
        real = float(np.float32(0.03)) * float(scales[o]) / float(np.float32(0.05))
        assert last[n, o, i, j] == min(max(lite(acc, real) + 9, 9), 255)
    outputs = next(iter(run.outputs.values()))
    assert (outputs == (last.astype(np.float32) - 9) * np.float32(0.05)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_operator_is_within_one_of_the_float_graph(kind, per_channel):
    g, zero = Graph(), kind(3)
    x = g.quantized("x", 0.0207, kind(100) if kind is np.uint8 else kind(-5))
    scales = np.random.default_rng(1).uniform(0.005, 0.0207, 8) if per_channel else 0.01
    wide = g.weight(codes(8, 4, 3, 3), scales)
    deep = g.weight(codes(8, 1, 2, 2, seed=2), scales)
    a = g.quantized(
        g.op("Clip", g.op("Conv", x, wide, pads=[1, 1, 1, 1]), g.constant(np.float32(0)), six(g)),
        0.0313,
        zero,
    )
    b = g.quantized(g.op("Conv", a, deep, group=8, dilations=[2, 2], pads=[1, 1, 1, 1]), 0.0479, zero)
    c = g.quantized(g.op("Relu", g.op("Add", a, b)), 0.0391, zero)
    d = g.quantized(g.op("Concat", a, c, b, axis=1), 0.0583, zero)
    e = g.quantized(g.op("MaxPool", d, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 0]), 0.0583, zero)
    f = g.quantized(
        g.op("AveragePool", e, kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1), 0.0479, zero
    )
    h = g.quantized(g.op("AveragePool", e, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 0.0583, zero)
    s = g.quantized(g.op("Slice", e, *(g.constant(np.array([v])) for v in (0, 9, 2, 2))), 0.0583, zero)
    t = g.quantized(g.op("Pad", s, g.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2]))), 0.0583, zero)
    p = g.quantized(g.op("Transpose", h, perm=[0, 2, 3, 1]), 0.0583, zero)
    m = g.weight(codes(24, 5, seed=3), [0.01, 0.0207, 0.0313, 0.01, 0.02] if per_channel else 0.0207, axis=1)
    q = g.quantized(g.op("MatMul", p, m), 0.1931, zero)
    means = g.quantized(g.op("ReduceMean", h, axes_of(g, 2, 3), keepdims=0), 0.0207, zero)
    v = g.op("Flatten", g.quantized(g.op("GlobalAveragePool", f), 0.0313, zero))
    z = g.op(
        "Gemm",
        v,
        g.weight(codes(10, 24, seed=4), 0.01),
        g.weight(np.arange(10, dtype=np.int32), 3e-4),
        transB=1,
    )
    u = g.quantized(g.op("Unsqueeze", g.op("Squeeze", means), g.constant(np.array([1]))), 0.0207, zero)
    outputs = [
        g.quantized(z, 0.0977, zero),
        t,
        q,
        g.quantized(g.op("Reshape", u, shape_of(g, 0, -1)), 0.0207, zero),
    ]
    model = g.model((4, 12, 12), *outputs)

    rows = agree(model, normal(3, 4, 12, 12), fused=False)

    assert len(rows) == 17
    assert max(row.largest for row in rows) <= 1, [row for row in rows if row.largest > 1]
    assert Agreement.over(rows, "all").equal > 0.99


@pytest.mark.parametrize("per_channel", [True, False])
def test_with_float_multipliers_the_codes_are_those_of_the_kernels_of_onnx_runtime(per_channel):
    g = Graph()
    x = g.quantized("x", 0.0207, np.uint8(100))
    scales = np.random.default_rng(1).uniform(0.005, 0.0207, 8) if per_channel else 0.01
    a = g.quantized(
        g.op("Relu", g.op("Conv", x, g.weight(codes(8, 4, 3, 3), scales), pads=[1] * 4)), 0.0113, np.uint8(0)
    )
    b = g.quantized(
        g.op("Conv", a, g.weight(codes(8, 8, 3, 3, seed=2), scales), pads=[1] * 4), 0.0479, np.uint8(90)
    )
    c = g.quantized(g.op("Add", a, b), 0.0391, np.uint8(70))
    d = g.quantized(g.op("GlobalAveragePool", c), 0.0313, np.uint8(3))
    dense = (g.weight(codes(10, 8, seed=4), 0.01), g.weight(np.arange(10, dtype=np.int32), 3.13e-4))
    z = g.quantized(g.op("Gemm", g.op("Flatten", d), *dense, transB=1), 0.0977, np.uint8(140))
    model = g.model((4, 24, 24), z)
    network, given = IntegerNetwork(model), {"x": normal(20, 4, 24, 24)}

    engine = run_engine(model, given)
    floats, integers = (
        end_to_end(network, given, engine.codes, rounding=mode) for mode in ("float", "double")
    )

    assert {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool"} <= engine.kernels.keys()
    assert [row.op for row in floats] == ["input", "Relu", "Conv", "Add", "GlobalAveragePool", "Gemm"]
    assert min(row.equal for row in floats) >= 0.99999
    assert Agreement.over(integers, "all").equal < 0.9999  # so the mode is what makes them equal


def six(g: Graph) -> str:
    return g.constant(np.float32(6))


def axes_of(g: Graph, *axes: int) -> str:
    return g.constant(np.array(axes))


def shape_of(g: Graph, *sizes: int) -> str:
    return g.constant(np.array(sizes))


def test_weights_with_a_zero_point_and_products_of_two_activations_are_exact():
    g, rng = Graph(), np.random.default_rng(0)
    w = rng.integers(0, 256, (5, 6)).astype(np.uint8)
    x = g.quantized("x", 0.03, np.uint8(120))
    y = g.op("MatMul", x, g.weight(w, np.float32(0.02), np.uint8(131)))
    scores = g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]))
    network, given = IntegerNetwork(g.model((4, 5), y, scores)), normal(2, 4, 5)

    run = network.run({"x": given})

    q = next(iter(run.codes.values())).astype(int) - 120
    first, second = run.outputs.values()
    unit = np.float64(np.float32(0.03))
    assert (
        first == (q @ (w.astype(int) - 131) * unit * np.float64(np.float32(0.02))).astype(np.float32)
    ).all()
    assert (second == ((q @ q.transpose(0, 2, 1)) * unit**2).astype(np.float32)).all()


def test_an_average_on_the_same_grid_is_the_integer_mean():
    g = Graph()
    x = g.quantized("x", 0.1, np.int8(-20))
    network = IntegerNetwork(g.model((3, 4, 6), g.quantized(g.op("GlobalAveragePool", x), 0.1, np.int8(-20))))

    first, last = network.run({"x": normal(5, 3, 4, 6)}).codes.values()

    for n, c in np.ndindex(5, 3):
        assert last[n, c, 0, 0] == half_away(Fraction(int(first[n, c].astype(int).sum()), 24))


def test_a_bias_is_rounded_to_the_scale_of_the_accumulators_once():
    g, b = Graph(), np.array([0.5, -1.25, 7.0], np.float32)
    x, w = g.quantized("x", 0.25, np.uint8(0)), g.weight(np.eye(3, dtype=np.int8), 0.125)
    direct = g.op("Gemm", x, w, g.constant(b))
    apart = g.op("Add", g.op("MatMul", x, w), g.constant(b))
    other = g.op("Gemm", x, w, g.weight((b * 4).astype(np.int32), 0.25))

    outputs = IntegerNetwork(g.model((3,), direct, apart, other))(np.zeros((1, 3), np.float32))

    assert isinstance(outputs, dict)
    for value in outputs.values():
        assert value.tolist() == [[0.5, -1.25, 7.0]]


def test_the_scale_of_a_bias_may_be_written_as_a_product():
    g, unit = Graph(), np.float32(0.3)
    scales = np.array([0.1, 0.7], np.float32)
    codes_of_bias = g.constant(np.array([5, -9], np.int32))
    product = g.op("Mul", g.constant(unit), g.constant(scales))
    bias = g.op("DequantizeLinear", codes_of_bias, product, axis=0)
    x = g.quantized("x", float(unit), np.uint8(7))
    network = IntegerNetwork(
        g.model((2,), g.op("Gemm", x, g.weight(np.zeros((2, 2), np.int8), scales), bias, transB=1))
    )

    expected = np.array([5, -9]) * scales.astype(np.float64) * np.float64(unit)
    assert (network(np.zeros((1, 2), np.float32)) == expected.astype(np.float32)).all()


def test_integers_may_be_clamped_pooled_moved_and_padded_between_rounding_and_reading():
    g = Graph()
    grid = (g.constant(np.float32(0.1)), g.constant(np.uint8(4)))
    narrow = g.op("Clip", g.op("QuantizeLinear", "x", *grid), "", g.constant(np.uint8(15)))
    pooled = g.op("MaxPool", narrow, kernel_shape=[2], strides=[2])
    padded = g.op("Pad", pooled, shape_of(g, 0, 0, 1, 0, 0, 0), grid[1])
    network = IntegerNetwork(g.model((1, 4), g.op("DequantizeLinear", g.op("Flatten", padded), *grid)))

    ours = network(np.array([[[1.0, 9.0, -0.2, -0.1]]], np.float32))

    assert ours.tolist() == np.float32([[0.0, 1.1, -0.1]]).tolist()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda g, x: g.op("Sigmoid", x), r"Sigmoid -> .*no integer form is known; known are Add"),
        (
            lambda g, x: g.op("Relu", g.op("Conv", "x", g.weight(codes(1, 2, 1, 1), 0.1))),
            "Conv.*not quantized",
        ),
        (lambda g, x: g.op("Conv", x, g.constant(normal(1, 2, 1, 1))), "an operand is not quantized"),
        (lambda g, x: g.op("Relu", "x"), "Relu.*an operand is not quantized"),
        (lambda g, x: g.op("MaxPool", "x", kernel_shape=[2, 2]), "MaxPool.*an operand is not quantized"),
        (lambda g, x: g.op("Add", x, g.constant(np.float32(1))), "Add.*an operand is not quantized"),
        (
            lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
            "auto_pad is 'SAME_UPPER', expected NOTSET",
        ),
        (lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2], ceil_mode=1), "ceil_mode is 1, expected 0"),
        (
            lambda g, x: g.op("Pad", x, shape_of(g, *[1] * 8), mode="edge"),
            "mode is 'edge', expected 'constant'",
        ),
        (
            lambda g, x: g.op("Conv", x, g.weight(codes(3, 2, 1, 1), [1e-9] * 3), big(g)),
            "32 bits do not hold",
        ),
        (lambda g, x: g.op("Flatten", g.op("GlobalAveragePool", x)), "Flatten.*an operand is not quantized"),
        (lambda g, x: g.op("Flatten", g.weight(codes(2, 2), [0.1, 0.2])), "2 scales along axis 0"),
    ],
)
def test_what_integers_cannot_do_is_named(build, says):
    g = Graph()
    model = g.model((2, 4, 4), build(g, g.quantized("x", 0.1, np.uint8(0))))

    with pytest.raises(ModelError, match=says):
        IntegerNetwork(model)(normal(1, 2, 4, 4))


def big(g: Graph) -> str:
    return g.constant(np.full(3, 2.0**31, np.float32))


def test_a_missing_input_is_named():
    g = Graph()

    with pytest.raises(ModelError, match="'x' is missing; this network reads x"):
        IntegerNetwork(g.model((2,), g.quantized("x", 0.1, np.uint8(0)))).run({})


class Samples(CalibrationDataReader):
    """The inputs one by one, as quantize_static reads them."""

    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self.rows = iter([{name: row[None]} for row in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self.rows, None)


def statically_quantized(name: str, folder: Path, kind: QuantType) -> tuple[bytes, np.ndarray]:
    """A trained network through pack, unpack and quantize_static; with 20 test inputs."""
    weights, source = {
        "lenet5": ("lenet5_caffe_mnist", "mnist"),
        "resnet20": ("resnet20_cifar10", "cifar10"),
    }[name]
    model, data = load_model(name, weights), load_data(source)
    seen = data.preprocess(data.train.take(np.arange(16))[0])
    if name == "resnet20":
        apply(model, [FreezeNorms()], example=torch.from_numpy(seen))
    pack(model, folder / "net.goss", torch.from_numpy(seen))
    (folder / "net.onnx").write_bytes(unpack(folder / "net.goss"))
    quant_pre_process(folder / "net.onnx", folder / "clean.onnx", skip_symbolic_shape=True)
    first = onnx.load(folder / "clean.onnx").graph.input[0].name
    quantize_static(
        folder / "clean.onnx",
        folder / "int8.onnx",
        Samples(first, seen),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=kind,
        weight_type=QuantType.QInt8,
    )
    return (folder / "int8.onnx").read_bytes(), data.preprocess(data.test.take(np.arange(20))[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_trained_networks_agree_with_onnx_runtime_layer_by_layer(name, kind, tmp_path):
    model, inputs = statically_quantized(name, tmp_path, kind)
    network = IntegerNetwork(model)
    given = {network.inputs[0]: inputs}

    engine = run_engine(model, given)

    if (
        kind == QuantType.QUInt8
    ):  # the same kernels as without a look at the layers: the comparison is a fair one
        assert engine.kernels["QLinearConv"] == sum(node.op == "Conv" for node in network.nodes)
    for rounding, least in (("double", 0.999), ("single", 0.9999)):
        rows = layer_by_layer(network, given, engine.codes, rounding=rounding)
        assert max(row.largest for row in rows) <= 1
        assert Agreement.over(rows, name).equal >= least
    logits = next(iter(engine.outputs.values()))
    assert (network(inputs).argmax(1) == logits.argmax(1)).mean() >= 0.9


@pytest.mark.slow
def test_a_deep_network_agrees_end_to_end_with_float_multipliers(tmp_path):
    model, inputs = statically_quantized("resnet20", tmp_path, QuantType.QUInt8)
    network = IntegerNetwork(model)
    given = {network.inputs[0]: inputs}

    rows = end_to_end(network, given, run_engine(model, given).codes, rounding="float")

    assert min(row.within_one for row in rows) >= 0.999
    assert max(row.largest for row in rows) <= 2


@pytest.mark.slow
def test_a_shallow_network_agrees_end_to_end(tmp_path):
    model, inputs = statically_quantized("lenet5", tmp_path, QuantType.QUInt8)
    network = IntegerNetwork(model)
    given = {network.inputs[0]: inputs}

    rows = end_to_end(network, given, run_engine(model, given).codes)

    whole = Agreement.over(rows, "lenet5")
    assert whole.within_one >= 0.999
    assert whole.largest <= 2
