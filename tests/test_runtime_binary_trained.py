"""A trained network of signs: the file's runtime takes the sign decisions of the torch model, layer by layer."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer import artifact, native
from gossamer.data import load_data
from gossamer.runtime import lower
from gossamer.steps import Binarize, Context

LAYERS = {"conv2": 16, "conv3": 32, "hidden": 32}  # and their channels


class Small(nn.Module):
    """Three convolutions, the pooling before a norm, and a hidden linear layer behind Flatten."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.norm3 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.hidden, self.norm4 = nn.Linear(288, 64, bias=False), nn.BatchNorm1d(64)
        self.linear, self.pool = nn.Linear(64, 10), nn.MaxPool2d(2)
        self.relu1, self.relu2, self.relu3, self.relu4 = nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu1(self.norm1(self.conv1(x)))
        x = self.relu2(self.norm2(self.conv2(x)))
        x = self.relu3(self.norm3(self.pool(self.conv3(x))))
        x = self.relu4(self.norm4(self.hidden(x.flatten(1))))
        return self.linear(x)


@pytest.fixture(scope="module", params=["BNN", "XNOR"])
def trained(request, tmp_path_factory):
    """(model, path of its file, pictures)"""
    full = load_data("digits")
    data = dataclasses.replace(full, train=full.train.subset(range(512)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        step = Binarize(epochs=2, lr=0.01, teacher=None, weights=request.param, activations="sign")
        model = step.apply(Small(), Context(data=data, example=torch.zeros(1, 1, 28, 28))).eval()
    path = tmp_path_factory.mktemp("trained") / "small.goss"
    x = torch.from_numpy(full.preprocess(full.test.take(slice(0, 300))[0]))
    gs.pack(model, path, x[:2])
    return model, path, x


def lowered(path) -> onnx.ModelProto:
    """The graph that runs, with what every operator of signs reads among its outputs."""
    with artifact.Reader(path) as reader:
        plan = lower.plan(reader, kernels="binary")
        model = onnx.load_from_string(plan.model)
        for stub, array in zip(plan.initializers, plan.arrays(), strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, stub.name))
    known = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.op_type.startswith("BinaryConv") and node.input[0] not in known:
            kind = onnx.TensorProto.UINT8 if node.input[0].endswith(".bits") else onnx.TensorProto.FLOAT
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.input[0], kind, None))
    return model


def minus(values: np.ndarray, channels: int) -> np.ndarray:
    """bool [N, C, ...], true for -1, of bits with the channels last or of floats."""
    if values.dtype != np.uint8:
        return ~(values >= 0)
    bits = np.unpackbits(values, axis=-1, bitorder="little")[..., :channels]
    return np.moveaxis(bits, -1, 1) != 0


def test_the_runtime_takes_the_sign_decisions_of_torch(trained):
    model, path, x = trained
    read: dict[str, torch.Tensor] = {}
    for name in LAYERS:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: read.__setitem__(name, given[0].detach())
        )
    with torch.no_grad():
        wanted = model(x).numpy()
    graph = lowered(path)
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(native.path()))
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])

    got = dict(zip((o.name for o in session.get_outputs()), session.run(None, {"x": x.numpy()}), strict=True))

    ours = [node for node in graph.graph.node if node.op_type.startswith("BinaryConv")]
    assert [node.name for node in ours] == [f"{name}.weight" for name in LAYERS]
    for node, (name, channels) in zip(ours, LAYERS.items(), strict=True):
        expected = read[name].numpy() < 0
        found = minus(got[node.input[0]], channels).reshape(expected.shape)
        assert 0.05 < expected.mean() < 0.95
        assert (found == expected).mean() >= 0.9999
    classes = gs.open(path, kernels="binary")(x.numpy()).argmax(1)
    assert (classes == wanted.argmax(1)).mean() >= 0.999
