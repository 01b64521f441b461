"""Quantized networks: the graph says QDQ, ONNX Runtime runs integers, and the file computes what the model does."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import quantized_samples as samples
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, runtime
from gossamer.artifact import Floats, Ints, Stored
from gossamer.data import load_data
from gossamer.errors import ExportError
from gossamer.export import pack
from gossamer.export.codes import NoCodesError, codes_of, whole_numbers
from gossamer.formats import Binary, Codebook, ScaledBinary, Sparse, Uniform
from gossamer.models import load_model
from gossamer.quantizers import Grid
from gossamer.runtime import feed
from gossamer.steps import FreezeNorms
from gossamer.steps.base import Context
from quantized_samples import Fixed, calibrated, disagreements, graph_of, gridded, optimized, quantizers

FLOAT = {"Conv", "FusedConv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "ReduceMean", "DequantizeLinear"}


@pytest.fixture(autouse=True)
def the_same_fresh_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pictures(name, count, split="test"):
    data = load_data(name)
    raw = getattr(data, split).inputs[np.arange(count)]
    return torch.as_tensor(np.asarray(data.preprocess(raw))).float()


def folded_resnet20(x):
    return FreezeNorms().apply(load_model("resnet20", "resnet20_cifar10"), Context(example=x[:2]))


def torch_output(model, x):
    with torch.no_grad():
        return model(x).numpy()


def file_output(packed, x):
    return runtime.open(packed.path, threads=1)(x.numpy())


# -- activations --------------------------------------------------------------------------------------------------------

GRIDS = [
    Grid.of_range(0.0, 3.0),
    Grid.of_range(-1.0, 2.0),
    Grid.of_range(-1.0, 2.0, signed=True),
    Grid.of_range(-1.0, 1.0, signed=True, symmetric=True),
    Grid.of_range(-1.0, 2.0, bits=4),
    Grid.of_range(-1.0, 2.0, bits=3, signed=True),
    Grid.of_range(-1.0, 2.0, bits=2, signed=True, symmetric=True),
]


class Rounded(nn.Module):
    """Its input, rounded to every grid."""

    def __init__(self):
        super().__init__()
        self.rounds = nn.ModuleList(Fixed(grid) for grid in GRIDS)

    def forward(self, x):
        return [rounds(x) for rounds in self.rounds]


def test_a_quantizer_is_quantize_clip_and_dequantize_and_nothing_else(tmp_path):
    model, x = Rounded(), noise(50, 40) * 2

    packed = pack(model, tmp_path / "m.goss", x)

    counts = collections.Counter(node.op_type for node in graph_of(packed.path).node)
    narrow = sum(grid.qmax - grid.qmin < 255 for grid in GRIDS)
    assert counts == {"QuantizeLinear": 7, "Clip": narrow, "DequantizeLinear": 7}
    for file, model_says in zip(file_output(packed, x).values(), model(x), strict=True):
        assert np.array_equal(file, model_says.numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_are_rounded_in_float32(dtype, tmp_path):
    model, x = nn.Sequential(Fixed(GRIDS[1])).to(dtype), noise(9, 4).to(dtype)
    model.register_parameter("wide", nn.Parameter(torch.zeros(1, dtype=dtype)))

    packed = pack(model, tmp_path / "m.goss", x)

    difference = np.abs(file_output(packed, x).astype(float) - torch_output(model, x))
    assert difference.max() <= GRIDS[1].scale + 1e-3


class Layer(nn.Module):
    """conv - something - quantizer - something - conv - quantizer."""

    def __init__(self, before, after, grid=None, inner=8):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(inner, 4, 1)
        self.before, self.after = before, after
        self.input, self.middle, self.output = Fixed(), Fixed(grid), Fixed()

    def forward(self, x):
        return self.output(self.second(self.after(self.middle(self.before(self.first(self.input(x)))))))


def same(x):
    return x


def strided(x):
    return F.pad(x[:, :, ::2, 1::2], (1, 0, 0, 1, 0, 0))


def shuffled(x):
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_every_grid_and_move_between_two_convolutions_leaves_them_on_integers(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            around_zero, small = Grid.of_range(-1, 1.5), Grid.of_range(-1, 1, bits=4, signed=True)
            self.relu = Layer(F.relu, same, around_zero)
            self.relu6 = Layer(F.relu6, same, small)
            self.moves = Layer(lambda y: F.max_pool2d(y, 2), strided)
            self.shuffles = Layer(
                shuffled, lambda y: F.interpolate(y[:, [3, 0, 1, 2, 7, 6, 5, 4]], scale_factor=2)
            )
            self.pixels = Layer(same, nn.PixelShuffle(2), inner=2)

        def forward(self, x):
            return [layer(x) for layer in self.children()]

    x = noise(4, 3, 8, 8)
    model = gridded(calibrated(Net(), x))

    packed = pack(model, tmp_path / "m.goss", x)

    ops = optimized(packed.path, tmp_path)
    assert (ops["QLinearConv"], ops["Conv"], ops["FusedConv"], ops["Relu"]) == (10, 0, 0, 0)
    outputs = file_output(packed, x).values()
    for layer, file, says in zip(model.children(), outputs, model(x), strict=True):
        differences = np.abs(file - says.detach().numpy()) / layer.output.grid().scale
        assert np.quantile(differences, 0.99) <= 1.01


def test_a_mean_over_all_positions_is_a_global_pooling(tmp_path):
    class Means(nn.Module):
        def forward(self, line, picture, video):
            means = [line.mean(2), picture.mean((2, 3)), video.mean((2, 3, 4))]
            return [*means, picture.mean((2, 3), keepdim=True)]

    given = (noise(2, 3, 8), noise(2, 3, 8, 8), noise(2, 3, 4, 4, 4))

    packed = pack(Means(), tmp_path / "m.goss", given)

    ops = collections.Counter(node.op_type for node in graph_of(packed.path).node)
    assert ops == {"GlobalAveragePool": 4, "Flatten": 3}
    for file, says in zip(runtime.open(packed.path)(*given).values(), Means()(*given), strict=True):
        np.testing.assert_allclose(file, says.numpy(), atol=1e-6)


# -- whole networks -----------------------------------------------------------------------------------------------------


def lenet():
    return samples.LeNet(load_model("lenet5", "lenet5_caffe_mnist")), pictures("mnist", 64)


def residual():
    x = pictures("cifar10", 32)
    return samples.Residual(folded_resnet20(x), 1), x


def inverted():
    return samples.Inverted(), noise(8, 3, 12, 12)


NETWORKS = {
    "LeNet-5": (lenet, {"QLinearConv": 2, "NhwcMaxPool": 2, "QGemm": 2}),
    "residual blocks": (
        residual,
        {"QLinearConv": 7, "QLinearAdd": 3, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    ),
    "inverted residual": (
        inverted,
        {"QLinearConv": 4, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    ),
    "concat of two grids": (
        lambda: (samples.Fire(one=False), noise(4, 3, 8, 8)),
        {"QLinearConv": 3, "QLinearConcat": 1, "DequantizeLinear": 1},
    ),
    "concat of one grid": (
        lambda: (samples.Fire(one=True), noise(4, 3, 8, 8)),
        {"QLinearConv": 3, "Concat": 1, "DequantizeLinear": 1},
    ),
    "perceptron": (lambda: (samples.Perceptron(), noise(40, 12)), {"QGemm": 3}),
    "perceptron on three axes": (
        lambda: (samples.Perceptron(), noise(4, 9, 12)),
        {"MatMulIntegerToFloat": 3, "Add": 3},
    ),
}


@pytest.fixture(scope="module")
def packed_network(tmp_path_factory):
    """{name: (model, its input, its file)}, each packed once."""

    @functools.cache
    def build(name):
        model, x = NETWORKS[name][0]()
        gridded(calibrated(model, x))
        return model, x, pack(model, tmp_path_factory.mktemp("networks") / "m.goss", x[:2])

    return build


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_becomes_an_integer_kernel(name, packed_network, tmp_path):
    expected = NETWORKS[name][1]
    _, _, packed = packed_network(name)

    ops = optimized(packed.path, tmp_path)

    assert {op: ops[op] for op in expected} == expected
    assert not [op for op in FLOAT - set(expected) if ops[op]]
    assert packed.notes == ()


@pytest.mark.parametrize("name", ["inverted residual", "residual blocks", "perceptron"])
def test_the_file_rounds_as_the_model_does_but_for_values_near_the_middle(name, packed_network):
    model, x, packed = packed_network(name)

    rows = disagreements(model, packed.path, x)

    assert max(worst for _, worst in rows) <= 1
    assert max(share for share, _ in rows) < 5e-3


def test_lenet5_classifies_as_the_model_does(packed_network):
    model, _, packed = packed_network("LeNet-5")
    x = pictures("mnist", 500)

    file, says = file_output(packed, x), torch_output(model, x)

    assert np.sqrt(np.mean((file - says) ** 2)) < 0.01 * np.abs(says).max()
    assert (file.argmax(1) == says.argmax(1)).all()


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory):
    x = pictures("cifar10", 128, "train")
    model = gridded(calibrated(samples.Residual(folded_resnet20(x)), x))
    return model, pack(model, tmp_path_factory.mktemp("resnet20") / "m.goss", x[:2])


@pytest.mark.slow
def test_resnet20_runs_on_integers_throughout(resnet20, tmp_path):
    _, packed = resnet20

    ops = optimized(packed.path, tmp_path)

    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (19, 9, 1)
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"], ops["QLinearGlobalAveragePool"]) == (1, 0, 1)


@pytest.mark.slow
def test_resnet20_takes_three_quarters_of_what_quantize_static_writes(resnet20):
    _, packed = resnet20

    assert packed.size_bytes < 0.75 * 371_407  # onnxruntime.quantization.quantize_static, per channel, QDQ


@pytest.mark.slow
def test_resnet20_rounds_999_of_1000_values_as_the_model_does(resnet20):
    model, packed = resnet20

    rows = disagreements(model, packed.path, pictures("cifar10", 64))

    assert len(rows) == 30
    assert max(worst for _, worst in rows) <= 1
    assert max(share for share, _ in rows) < 1e-3


@pytest.mark.slow
def test_resnet20_classifies_as_the_model_does(resnet20):
    model, packed = resnet20
    x = pictures("cifar10", 500)

    file, model_says = file_output(packed, x), torch_output(model, x)

    assert (file.argmax(1) == model_says.argmax(1)).mean() >= 0.99


@pytest.mark.slow
def test_mobilenet_small_runs_on_integers_throughout(tmp_path):
    from gossamer.steps import Calibrate

    data = load_data("cifar10")
    model = Calibrate(samples=64).apply(load_model("mobilenet-small"), Context(data=data))
    for name, parameter in list(model.named_parameters()):
        if parameter.dim() > 1:
            formats.refine(model, name, Uniform(bits=8, granularity="channel"))
        else:
            parameter.data.zero_()  # fresh weights leave so little that a bias would be all

    packed = pack(model, tmp_path / "m.goss", pictures("cifar10", 2))

    ops = optimized(packed.path, tmp_path)
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QLinearGlobalAveragePool"], ops["QGemm"]) == (
        26,
        1,
        1,
        1,
    )
    assert not [op for op in FLOAT | {"Clip", "Relu"} if ops[op]]


# -- weights ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridCodebook(formats.WeightFormat):
    """Shared values that lie on a grid; stored with their values, or `nested` as a node of their own."""

    layout = "codebook"
    own_parts = ("codes",)
    centroids: formats.WeightFormat = dataclasses.field(default_factory=lambda: Uniform(bits=8))
    nested: bool = False

    def encode(self, dense):
        codes, centroids = Codebook(bits=4).encode(dense)
        return (codes, *self.centroids.encode(centroids))

    def decode(self, *parts):
        (codes,), below = self.split(*parts)
        return self.centroids.decode(*below["centroids"])[codes.int()]

    def store(self, *parts):
        (codes,), below = self.split(*parts)
        fields = {"codes": Ints(codes.numpy().reshape(-1), 4)}
        if self.nested:
            inner = {"centroids": self.centroids.store(*below["centroids"])}
            return Stored("codebook", tuple(codes.shape), fields, inner)
        values = self.centroids.decode(*below["centroids"]).detach().numpy()
        return Stored("codebook", tuple(codes.shape), {**fields, "centroids": Floats(values)})


class OwnScale(Uniform):
    """A format that learns its scale: another class with the same parts."""


WEIGHT_FORMATS = {
    "tensor": Uniform(bits=8),
    "channel": Uniform(bits=8, granularity="channel"),
    "narrow": Uniform(bits=4, granularity="channel", fit="mse"),
    "open": Uniform(bits=None, step=0.004),
    "subclass": OwnScale(bits=8, granularity="channel"),
    "pruned": Sparse(values=Uniform(bits=6)),
    "signs": Binary(),
    "scaled": ScaledBinary(),
    "shared": GridCodebook(),
    "nested": GridCodebook(nested=True),
    "both": Sparse(values=GridCodebook()),
}


class Chain(nn.Module):
    """One convolution per format, each between quantizers."""

    def __init__(self, chosen):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Conv2d(8, 8, 3, padding=1) for name in chosen})
        self.rounds = nn.ModuleList(Fixed() for _ in range(len(chosen) + 1))

    def forward(self, x):
        x = self.rounds[0](x)
        for layer, rounds in zip(self.layers.values(), self.rounds[1:], strict=True):
            x = rounds(F.relu(layer(x)))
        return x


def chained(chosen, x):
    model = calibrated(Chain(chosen), x)
    for name, format in chosen.items():
        weight = model.layers[name].weight
        if isinstance(format, Sparse):
            weight.data[weight.abs() < weight.abs().flatten().quantile(0.8)] = 0
        formats.attach(model.layers[name], "weight", format)
    return model


def test_the_initialiser_holds_exactly_the_codes_of_the_format(tmp_path):
    x = noise(4, 8, 8, 8)
    model = chained(WEIGHT_FORMATS, x)

    packed = pack(model, tmp_path / "m.goss", x)

    assert packed.notes == ()
    assert optimized(packed.path, tmp_path)["QLinearConv"] == len(WEIGHT_FORMATS)
    scales = [
        value for value in samples.constants(graph_of(packed.path)).values() if value.dtype == np.float32
    ]
    with artifact.Reader(packed.path) as reader:
        for name, format in WEIGHT_FORMATS.items():
            tensor = reader.tensor(f"layers.{name}.weight")
            codes, decoded = artifact.rebuild(tensor), model.layers[name].weight.detach().numpy()
            assert codes.dtype == np.int8
            assert tensor.stored.layout == {"uniform": "integers", "binary": "integers"}.get(
                format.layout, format.layout
            )
            spread = [scale.reshape(-1, 1, 1, 1) for scale in scales if scale.size in (1, 8)]
            assert any(np.array_equal(codes * scale, decoded) for scale in spread)


def test_weights_without_8_bit_codes_stay_in_floats_with_a_note(tmp_path):
    reasons = {
        "shared": (Codebook(bits=4), "its layout codebook is not integers times a scale"),
        "pruned": (Sparse(values=Codebook(bits=4)), "its layout codebook is not integers times a scale"),
        "wide": (Uniform(bits=12), "its codes -?[0-9]+..[0-9]+ do not fit 8 bits"),
        "dense": (formats.Dense(dtype="float16"), "its layout dense is not integers times a scale"),
        "groups": (Uniform(bits=8, granularity="group", group=16), "it has a scale per group of inputs"),
    }
    x = noise(4, 8, 8, 8)
    model = chained({name: format for name, (format, _) in reasons.items()}, x)

    packed = pack(model, tmp_path / "m.goss", x)

    assert len(packed.notes) == len(reasons)
    for note, (name, (_, reason)) in zip(packed.notes, reasons.items(), strict=True):
        assert re.fullmatch(f"the layer of layers.{name}.weight runs in floats: {reason}", note)
    assert optimized(packed.path, tmp_path)["QLinearConv"] == 0
    assert runtime.open(packed.path).notes == list(packed.notes)


def test_a_weight_whose_input_is_not_quantized_is_stored_as_without_quantizers(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Fixed(Grid.of_range(0, 2)), nn.Linear(8, 3))
    gridded(model)

    packed = pack(model, tmp_path / "m.goss", noise(3, 6))

    with artifact.Reader(packed.path) as reader:
        kinds = {
            name: (reader.outline(name).node.layout, reader.outline(name).dtype) for name in reader.names
        }
    assert kinds["0.weight"] == ("uniform", "float32")
    assert kinds["3.weight"] == ("integers", "int8")
    assert packed.notes == ()


def test_a_convolution_whose_output_is_not_quantized_stays_in_floats(tmp_path):
    model = gridded(nn.Sequential(Fixed(Grid.of_range(-2, 2)), nn.Conv2d(3, 4, 3)))

    packed = pack(model, tmp_path / "m.goss", noise(2, 3, 8, 8))

    assert packed.notes == ("the layer of 1.weight runs in floats: its output is not quantized",)


def test_a_weight_that_two_layers_read_is_stored_once(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)
            self.input, self.middle = Fixed(Grid.of_range(-3, 3)), Fixed(Grid.of_range(-1, 2))

        def forward(self, x):
            return self.linear(self.middle(self.linear(self.input(x))))

    model, x = gridded(Twice()), noise(8, 6)

    packed = pack(model, tmp_path / "m.goss", x)

    with artifact.Reader(packed.path) as reader:
        assert sum(reader.outline(name).dtype == "int8" for name in reader.names) == 1
    assert optimized(packed.path, tmp_path)["QGemm"] == 2
    np.testing.assert_allclose(file_output(packed, x), torch_output(model, x), atol=0.02)


def test_a_weight_that_is_also_read_in_floats_stays_float(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.input = nn.Linear(6, 6, bias=False), Fixed(Grid.of_range(-3, 3))

        def forward(self, x):
            weight = self.linear.weight
            return F.linear(self.input(x), weight) + (x * x) @ weight.t()

    packed = pack(gridded(Tied()), tmp_path / "m.goss", noise(8, 6))

    assert packed.notes == ("the layer of linear.weight runs in floats: another operator reads it in floats",)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("dead", ["one channel", "all channels"])
def test_a_dead_channel_keeps_its_bias(dead, granularity, tmp_path):
    x = noise(4, 3, 8, 8)
    model = Layer(F.relu, same)
    model.first.weight.data[2 if dead == "one channel" else slice(None)] = 0
    model.first.bias.data = torch.linspace(-3, 5, 8)
    gridded(calibrated(model, x), lambda: Uniform(bits=8, granularity=granularity))

    packed = pack(model, tmp_path / "m.goss", x)

    assert optimized(packed.path, tmp_path)["QLinearConv"] == 2
    assert max(worst for _, worst in disagreements(model, packed.path, x)) <= 1


def test_a_bias_that_would_not_fit_32_bits_leaves_the_layer_in_floats(tmp_path):
    x = noise(4, 3, 8, 8)
    model = Layer(F.relu, same)
    model.first.weight.data *= 1e-9
    model.first.bias.data.fill_(1.0)
    gridded(calibrated(model, x))

    packed = pack(model, tmp_path / "m.goss", x)

    assert packed.notes == ("the layer of first.weight runs in floats: its sums could pass 32 bits",)
    assert optimized(packed.path, tmp_path)["QLinearConv"] == 1  # left to itself, ONNX Runtime makes two
    assert np.array_equal(file_output(packed, x), torch_output(model, x))


def test_biases_are_stored_as_integers(packed_network):
    model, _, packed = packed_network("concat of one grid")

    with artifact.Reader(packed.path) as reader:
        outline = reader.outline("left.bias")
        codes = artifact.rebuild(reader.tensor("left.bias"))

    scale = np.float32(model.input.grid().scale) * formats.parts_of(model, "left.weight")[1].numpy()
    assert (outline.dtype, outline.node.layout) == ("int32", "integers")
    assert (np.abs(codes * scale - model.left.bias.detach().numpy()) <= 0.51 * scale).all()


@pytest.mark.parametrize("numbers", [[0], [5, -3], [70000, -2], [2**31 - 1, -(2**31) + 1], []])
def test_whole_numbers_of_any_size_are_rebuilt(numbers):
    values = np.array(numbers, np.int64)

    tensor = artifact.Tensor("t", "t", whole_numbers(values), None, "int32")

    assert artifact.rebuild(tensor).tolist() == numbers
    artifact.to_bytes(artifact.Artifact(b"", (tensor,)))


def test_codes_that_do_not_give_the_weight_are_refused():
    format = Uniform(bits=8)
    parts = format.encode(noise(4, 5))

    with pytest.raises(NoCodesError, match="are not its values"):
        codes_of(format, parts, format.decode(*parts).numpy() + 1e-3)


# -- packing ------------------------------------------------------------------------------------------------------------


def test_a_file_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    from gossamer.export import integers

    plain = integers._bias_codes
    monkeypatch.setattr(integers, "_bias_codes", lambda *given: plain(*given) * 2)
    model, x = residual()
    gridded(calibrated(model, x))

    with pytest.raises(ExportError, match="differs from the model's"):
        pack(model, tmp_path / "m.goss", x[:2])

    assert list(tmp_path.iterdir()) == []


def test_a_quantizer_that_still_observes_is_an_error(tmp_path):
    model = nn.Sequential(Fixed(), nn.Linear(4, 3))

    with pytest.raises(ExportError, match=r"quantizer '0' still observes.*Settle"):
        pack(model, tmp_path / "m.goss", noise(2, 4))

    assert model[0].seen == (0.0, 0.0)


def test_quantizers_and_their_hooks_are_left_as_they_were(tmp_path):
    model = gridded(calibrated(samples.Perceptron(), noise(40, 12)))
    grids = [quantizer.grid() for quantizer in quantizers(model)]

    pack(model, tmp_path / "m.goss", noise(2, 12))

    assert [quantizer.grid() for quantizer in quantizers(model)] == grids
    assert not any(quantizer._forward_pre_hooks for quantizer in quantizers(model))


def test_a_quantizer_that_is_off_leaves_no_trace(tmp_path):
    model = gridded(calibrated(samples.Perceptron(), noise(40, 12)))
    for quantizer in quantizers(model):
        quantizer.state = "off"

    packed = pack(model, tmp_path / "m.goss", noise(2, 12))

    assert "QuantizeLinear" not in [node.op_type for node in graph_of(packed.path).node]
    assert packed.max_difference < 1e-5


def test_integer_outputs_may_differ_where_rounding_decides(tmp_path):
    class Choice(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = gridded(calibrated(samples.Perceptron(), noise(40, 12)))

        def forward(self, x):
            return self.net(x).argmax(1)

    packed = pack(Choice(), tmp_path / "m.goss", noise(40, 12))

    assert packed.max_difference == 0


def test_quantized_weights_are_mapped_from_a_file_too(tmp_path, monkeypatch):
    model = gridded(calibrated(samples.Perceptron(), noise(40, 12)))
    packed = pack(model, tmp_path / "m.goss", noise(2, 12))
    in_memory = file_output(packed, noise(5, 12))

    monkeypatch.setattr(feed, "SPILL", 0)

    assert np.array_equal(file_output(packed, noise(5, 12)), in_memory)
