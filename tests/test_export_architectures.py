"""Every kind of network: packed, reopened by the torch-free runtime, the same logits within 1e-4."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, runtime
from gossamer.export import pack


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2, self.drop = nn.Linear(800, 500), nn.Linear(500, 10), nn.Dropout()

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(self.drop(F.relu(self.fc1(x.flatten(1)))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.position = nn.Embedding(50, 32), nn.Parameter(torch.randn(1, 10, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 7)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens) + self.position))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(32, 4, batch_first=True), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(x)))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(12, 20, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(40, 5)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Deconvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.norm1 = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.up, self.norm2 = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.BatchNorm2d(8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = F.relu(self.norm1(self.down(x)))
        return torch.sigmoid(self.out(F.relu(self.norm2(self.up(x)))))


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.inner = nn.Embedding(60, 24), nn.Linear(24, 24)
        self.head = nn.Linear(24, 60, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.inner(self.embedding(ids))))


class TwoByTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, left, right):
        hidden = torch.relu(self.a(left) + self.b(right))
        return self.head(hidden), hidden.sum(1)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        features = self.conv(x)
        return {"logits": self.head(features.mean((2, 3))), "features": features}


def mlp() -> nn.Module:
    layers = [
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.BatchNorm1d(100),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def from_pytorchcv(module: str, name: str) -> nn.Module:
    network = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    for holder in (network.features, network.output):
        if hasattr(holder, "final_pool"):
            holder.final_pool = nn.AdaptiveAvgPool2d(1)  # the published ones take images of 224 only
    return network


IMAGE, COLOUR = (2, 1, 28, 28), (2, 3, 64, 64)
QUICK = {
    "mlp": (mlp, torch.randn(IMAGE)),
    "lenet5": (LeNet5, torch.randn(IMAGE)),
    "encoder": (Encoder, torch.randint(0, 50, (2, 10))),
    "attention": (Attention, torch.randn(2, 9, 32)),
    "lstm": (lambda: Recurrent(nn.LSTM), torch.randn(2, 7, 12)),
    "gru": (lambda: Recurrent(nn.GRU), torch.randn(2, 7, 12)),
    "deconvolution": (Deconvolution, torch.randn(2, 3, 16, 16)),
    "tied": (TiedHead, torch.randint(0, 60, (2, 9))),
    "two-by-two": (TwoByTwo, (torch.randn(2, 6), torch.randn(2, 5))),
    "named": (Named, torch.randn(2, 1, 8, 8)),
    "resnet20": (lambda: from_pytorchcv("resnet_cifar", "resnet20_cifar10"), torch.randn(2, 3, 32, 32)),
    "squeezenet": (lambda: from_pytorchcv("squeezenet", "squeezenet_v1_1"), torch.randn(COLOUR)),
}
SLOW = {
    name: (lambda module=module, function=function: from_pytorchcv(module, function), torch.randn(COLOUR))
    for name, module, function in [
        ("resnet18", "resnet", "resnet18"),
        ("mobilenetv2", "mobilenetv2", "mobilenetv2_w1"),
        ("densenet", "densenet", "densenet121"),
        ("shufflenetv2", "shufflenetv2", "shufflenetv2_w1"),
        ("efficientnet", "efficientnet", "efficientnet_b0"),
    ]
}
ALL = {**QUICK, **SLOW}
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def build(name: str) -> tuple[nn.Module, Any]:
    """The network with random norms, so that nothing of them is trivial, and its example."""
    torch.manual_seed(0)
    make, example = ALL[name]
    model = make().eval()
    with torch.no_grad():
        for parameter in dict.fromkeys(model.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.01)  # copied layers would be stored once
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model, example


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """name -> (model, example, Packed), packed once."""
    folder, done = tmp_path_factory.mktemp("packed"), {}

    def get(name: str):
        if name not in done:
            model, example = build(name)
            done[name] = model, example, pack(model, folder / f"{name}.goss", example)
        return done[name]

    return get


def outputs_of(model: nn.Module, example: Any) -> list[np.ndarray]:
    with torch.no_grad():
        result = model(*example) if isinstance(example, tuple) else model(example)
    values = (
        [result] if isinstance(result, Tensor) else result.values() if isinstance(result, dict) else result
    )
    return [value.numpy() for value in values]


def resized(example: Any, batch: int) -> Any:
    if isinstance(example, tuple):
        return tuple(resized(value, batch) for value in example)
    return example[torch.arange(batch) % len(example)]


def ran(session: runtime.Session, example: Any) -> list[np.ndarray]:
    values = example if isinstance(example, tuple) else (example,)
    result = session(*(value.numpy() for value in values))
    return list(result.values()) if isinstance(result, dict) else [result]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_gives_the_models_outputs_at_any_batch(name, packed):
    model, example, result = packed(name)

    session = runtime.open(result.path)

    assert result.notes == ()
    for batch in (1, 2, 3):
        given = resized(example, batch)
        for got, want in zip(ran(session, given), outputs_of(model, given), strict=True):
            assert np.abs(got - want).max() <= 1e-4 * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", ["lenet5", "encoder", "attention", "deconvolution", "resnet20"])
def test_formats_of_every_weight_survive_the_export(name, tmp_path):
    model, example = build(name)
    kinds = [
        formats.Codebook(bits=4),
        formats.Uniform(bits=5),
        formats.Sparse(values=formats.Codebook(bits=4)),
    ]
    for at, module in enumerate(list(model.modules())):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 64:
            formats.attach(module, "weight", kinds[at % 3])
        elif isinstance(module, nn.MultiheadAttention):
            formats.attach(module, "in_proj_weight", kinds[at % 2])
    layouts = {key: stored.layout for key, stored in formats.stored(model).items()}

    packed = pack(model, tmp_path / "model.goss", example)
    rows = runtime.open(packed.path).explain()

    assert {row.weight: row.layout.partition("(")[0] for row in rows if row.weight in layouts} == layouts
    for got, want in zip(ran(runtime.open(packed.path), example), outputs_of(model, example), strict=True):
        assert np.abs(got - want).max() <= 1e-4 * max(1, np.abs(want).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_graph_holds_no_float_weights(name, packed):
    with artifact.Reader(packed(name)[2].path) as reader:
        graph = onnx.ModelProto.FromString(reader.graph).graph

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    inside = [np.prod(item.dims) for item in graph.initializer if item.data_type in floats]
    assert all(size <= 16 for size in inside)
    assert all(not node.name and not node.doc_string and not node.metadata_props for node in graph.node)
    assert not graph.value_info
    assert all(node.op_type not in ("Identity", "Dropout", "BatchNormalization") for node in graph.node)


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_onnx_file_runs_in_other_engines(name, packed):
    model, example, result = packed(name)
    plain = runtime.unpack(result.path)
    onnx.checker.check_model(plain, full_check=True)
    values = [value.numpy() for value in (example if isinstance(example, tuple) else (example,))]
    ports = runtime.open(result.path).inputs
    want = outputs_of(model, example)

    stock = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
    other = openvino.Core().compile_model(
        openvino.Core().read_model(plain), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    from_stock = stock.run(None, {port.name: value for port, value in zip(ports, values, strict=True)})
    from_other = list(other(values).values())
    for got in (from_stock, from_other):
        for one, expected in zip(got, want, strict=True):
            assert np.abs(one - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
