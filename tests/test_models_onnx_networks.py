"""Whole networks: exported or packed, read back, and equal to ONNX Runtime; every step works on what was read."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTForImageClassification

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import Calibrate, FreezeNorms, Prune, Share, apply, runtime
from gossamer.data import load_data
from gossamer.export import pack
from gossamer.models import from_onnx, load_model
from gossamer.quantizers import record
from gossamer.quantizers.calls import Call
from gossamer.training import evaluate


def from_pytorchcv(module: str, name: str) -> nn.Module:
    network = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    for holder in (network.features, network.output):
        if hasattr(holder, "final_pool"):
            holder.final_pool = nn.AdaptiveAvgPool2d(1)  # the published ones take images of 224 only
    return network


def bert(attention: str) -> nn.Module:
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100
    )
    config._attn_implementation = attention
    return BertModel(config)


def vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    return ViTForImageClassification(config)


COLOUR = (torch.randn(2, 3, 64, 64),)
MASK = torch.ones(2, 9, dtype=torch.int64)
MASK[1, 6:] = 0
TEXT = (torch.randint(0, 100, (2, 9)), MASK)
QUICK = {
    "squeezenet": (lambda: from_pytorchcv("squeezenet", "squeezenet_v1_1"), COLOUR),
    "bert": (lambda: bert("sdpa"), TEXT),
    "vit": (vit, (torch.randn(2, 3, 32, 32),)),
}
SLOW = {
    "bert-eager": (lambda: bert("eager"), TEXT),
    **{
        name: (lambda module=module, function=function: from_pytorchcv(module, function), COLOUR)
        for name, module, function in [
            ("resnet18", "resnet", "resnet18"),
            ("mobilenetv2", "mobilenetv2", "mobilenetv2_w1"),
            ("mobilenetv3", "mobilenetv3", "mobilenetv3_small_w1"),
            ("densenet", "densenet", "densenet121"),
            ("shufflenetv2", "shufflenetv2", "shufflenetv2_w1"),
            ("efficientnet", "efficientnet", "efficientnet_b0"),
        ]
    },
}
ALL = {**QUICK, **SLOW}
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def export(model: nn.Module, example: tuple[Tensor, ...], path: Path, **options: Any) -> Path:
    """The file that torch's exporter writes, with a free batch."""
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(), example, dynamo=True, dynamic_shapes=shapes, verbose=False, **options
        )
    assert program is not None
    program.save(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name -> (model, example, path), exported once."""
    folder, done = tmp_path_factory.mktemp("exported"), {}

    def get(name: str) -> tuple[nn.Module, tuple[Tensor, ...], Path]:
        if name not in done:
            torch.manual_seed(0)
            make, example = ALL[name]
            model = make()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.01)  # exporters merge equal vectors
            done[name] = model, example, export(model, example, folder / f"{name}.onnx")
        return done[name]

    return get


def resized(example: tuple[Tensor, ...], batch: int) -> list[Tensor]:
    return [value[torch.arange(batch) % len(value)] for value in example]


def in_runtime(source: Path | bytes, values: list[Tensor]) -> list[np.ndarray]:
    data = source if isinstance(source, bytes) else str(source)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feed = {port.name: value.numpy() for port, value in zip(session.get_inputs(), values, strict=True)}
    result: list[np.ndarray] = session.run(None, feed)
    return result


def in_torch(network: nn.Module, values: list[Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        result = network(*values)
    return [value.numpy() for value in (result.values() if isinstance(result, dict) else [result])]


def assert_close(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for one, expected in zip(got, want, strict=True):
        assert np.abs(one - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_gives_what_onnx_runtime_gives_at_any_batch(name, exported):
    _, example, path = exported(name)

    network = from_onnx(path)

    for batch in (1, 2, 5):
        values = resized(example, batch)
        assert_close(in_torch(network, values), in_runtime(path, values))


@pytest.mark.parametrize("name", NAMES)
def test_its_layers_are_those_of_the_model_that_was_exported(name, exported):
    model, _, path = exported(name)
    layers = (nn.Conv2d, nn.Linear, nn.LayerNorm)
    given = {path: module for path, module in model.named_modules() if isinstance(module, layers)}
    tables = {path for path, module in model.named_modules() if isinstance(module, nn.Embedding)}

    found = {path: module for path, module in from_onnx(path).named_modules() if isinstance(module, layers)}

    assert set(found) == set(given)
    for place, module in found.items():
        assert module.weight.shape == given[place].weight.shape
    assert len(tables) in (0, 3)  # the tables of positions and segments are looked up while exporting


@pytest.mark.parametrize(
    "name", ["squeezenet", "bert", "vit", pytest.param("efficientnet", marks=pytest.mark.slow)]
)
def test_it_can_be_packed_again_with_a_free_batch(name, exported, tmp_path):
    _, example, path = exported(name)
    network = from_onnx(path)

    packed = pack(network, tmp_path / "again.goss", example)
    session = runtime.open(packed.path)

    values = resized(example, 5)
    given = session(*(value.numpy() for value in values))
    assert packed.notes == ()
    assert [port.name for port in session.inputs] == list(network.input_names)
    assert_close(list(given.values()) if isinstance(given, dict) else [given], in_runtime(path, values))


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "resnet20", "mobilenet-small"])
def test_a_packed_network_comes_back_by_way_of_onnx(name, tmp_path):
    model = load_model(name)
    x = torch.randn(3, *model.input_shape[1:])
    packed = pack(model, tmp_path / "model.goss", x)

    network = from_onnx(runtime.unpack(packed.path))

    assert_close(in_torch(network, [x]), in_torch(model, [x]))
    assert_close(in_torch(network, [x]), in_runtime(runtime.unpack(packed.path), [x]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the public ResNet-20, the same from its ONNX file with norms, the file)."""
    model = load_model("resnet20", "resnet20_cifar10")
    path = tmp_path_factory.mktemp("trained") / "resnet20.onnx"
    export(model, (torch.randn(2, 3, 32, 32),), path, optimize=False)
    return model, path


def test_quantizers_see_the_same_calls_in_it(trained):
    model, path = trained
    network, x = from_onnx(path), torch.randn(2, 3, 32, 32)

    ours, own = record(network, (x,)), record(model, (x,))

    def what(call: Call) -> tuple[object, ...]:
        return call.kind, call.layer if call.weighted else "", call.norm, call.shape

    assert [what(call) for call in ours.calls] == [what(call) for call in own.calls]
    assert [call.reads for call in ours.calls] == [call.reads for call in own.calls]


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps", [[FreezeNorms()], [Prune(sparsity=0.5), Share(bits=5)]], ids=["norms", "prune"]
)
def test_steps_do_the_same_to_it_as_to_the_model_itself(steps, trained, tmp_path):
    _, path = trained
    data = load_data("cifar10")
    networks = [load_model("resnet20", "resnet20_cifar10"), from_onnx(path)]

    made = [apply(network, steps, data, example=data.batch(2)) for network in networks]

    images = data.test.subset(100)
    scores = [evaluate(network, images, data.preprocess) for network in made]
    sizes = [int(pack(network, tmp_path / f"{at}.goss", data.batch(2))) for at, network in enumerate(made)]
    assert scores[0].correct == scores[1].correct
    assert abs(sizes[0] - sizes[1]) < 0.03 * sizes[0]


@pytest.mark.slow
def test_a_network_that_gossamer_quantized_stays_quantized(trained, tmp_path):
    _, path = trained
    data = load_data("cifar10")
    quantized = apply(from_onnx(path), [FreezeNorms(), Calibrate(samples=100)], data, example=data.batch(2))
    first = runtime.unpack(pack(quantized, tmp_path / "first.goss", data.batch(2)).path)

    network = from_onnx(first)
    second = runtime.unpack(pack(network, tmp_path / "second.goss", data.batch(2)).path)

    x = data.preprocess(data.test.take(slice(0, 50))[0])
    counts = [
        sum(n.op_type == "QuantizeLinear" for n in onnx.load_model_from_string(f).graph.node)
        for f in (first, second)
    ]
    want, got = in_runtime(first, [torch.from_numpy(x)])[0], in_torch(network, [torch.from_numpy(x)])[0]
    assert counts[0] == counts[1] > 20
    assert (want.argmax(1) == got.argmax(1)).mean() >= 0.96
    assert np.abs(want - got).mean() < 0.02 * np.abs(want).mean()


class Batch(CalibrationDataReader):
    """One batch for ONNX Runtime's own quantizer."""

    def __init__(self, x: np.ndarray) -> None:
        self._rest = iter([{"x": x}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


@pytest.mark.slow
def test_a_network_that_onnx_runtime_quantized_is_read_with_its_integers(trained, tmp_path):
    _, path = trained
    data = load_data("cifar10")
    x = data.preprocess(data.test.take(slice(0, 50))[0])
    quantize_static(str(path), str(tmp_path / "q.onnx"), Batch(x), per_channel=True)

    network = from_onnx(tmp_path / "q.onnx")

    want, got = (
        in_runtime(tmp_path / "q.onnx", [torch.from_numpy(x)])[0],
        in_torch(network, [torch.from_numpy(x)])[0],
    )
    weight = network.get_submodule("layer1.0.conv1").weight[0]
    codes = weight / weight.abs().max() * 127
    assert (codes - codes.round()).abs().max() < 1e-3
    assert (want.argmax(1) == got.argmax(1)).mean() >= 0.96
    assert np.abs(want - got).mean() < 0.02 * np.abs(want).mean()
