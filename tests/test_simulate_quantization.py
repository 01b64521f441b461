"""Training with simulated quantization: what it leaves is the integer graph that calibration gives, and it resumes."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gossamer as gs
from gossamer import formats, quantizers
from gossamer.data import Data
from gossamer.errors import OptionError, StepError
from gossamer.formats import Sparse, Uniform
from gossamer.methods.jacob import IntegerNetwork
from gossamer.recipe import parse
from gossamer.run import compress
from gossamer.training import evaluate
from gossamer.training.delayed_rounding import DelayedRounding

OPTIONS = {"epochs": 2, "lr": 0.01, "optimizer": "sgd", "batch_size": 50, "samples": 64}


class Net(nn.Module):
    """Two norms that fold, one behind a sum that does not, a convolution and a linear layer without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.plain = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = F.relu(x + self.body(x))
        x = F.max_pool2d(F.relu(self.plain(x)), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def make() -> nn.Module:
    """For recipes: module:function."""
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def data() -> Data:
    digits = gs.load_data("digits")
    sizes = {"train": 400, "validation": 100, "test": 400}
    few = {name: getattr(digits, name).subset(range(size)) for name, size in sizes.items()}
    return dataclasses.replace(digits, **few)


@pytest.fixture(scope="module")
def float_net(data: Data) -> nn.Module:
    model = make()
    gs.apply(model, gs.Train(epochs=6, lr=3e-3, batch_size=32), data)
    return model.eval()


def operators(model: nn.Module, data: Data, path) -> Counter[str]:
    gs.pack(model, path, data.batch(2))
    graph = onnx.load_from_string(gs.unpack(path)).graph
    return Counter(node.op_type for node in graph.node)


def test_the_trained_network_is_the_integer_graph_that_calibration_gives(float_net, data, tmp_path):
    trained, calibrated = copy.deepcopy(float_net), copy.deepcopy(float_net)

    gs.apply(trained, gs.SimulateQuantization(**OPTIONS), data)
    gs.apply(calibrated, [gs.Calibrate(samples=64), gs.Quantize(bits=8)], data)

    assert operators(trained, data, tmp_path / "a.goss") == operators(calibrated, data, tmp_path / "b.goss")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in trained.modules())
    assert list(dict(trained.named_modules())) == list(dict(calibrated.named_modules()))
    x = data.batch(64)
    ours = trained(torch.from_numpy(x)).detach().numpy()
    file = gs.open(tmp_path / "a.goss")(x)
    integers = IntegerNetwork(gs.unpack(tmp_path / "a.goss"))(x)
    assert np.abs(ours - file).max() < 0.03 * np.abs(ours).max()
    assert np.abs(integers - file).max() < 0.03 * np.abs(ours).max()
    before, after = (evaluate(m, data.test, data.preprocess).accuracy for m in (float_net, trained))
    assert after > before - 0.02


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_every_weight_lies_on_a_grid_that_reaches_its_largest_value(float_net, data, granularity):
    model = copy.deepcopy(float_net)

    gs.apply(model, gs.SimulateQuantization(bits=4, granularity=granularity, **OPTIONS), data)

    found = formats.attached(model)
    assert set(found) == {"stem.weight", "body.0.weight", "plain.weight", "head.weight"}
    for name, entry in found.items():
        assert entry.format == Uniform(bits=4, granularity=granularity)
        latent, scale = formats.parts_of(model, name)
        rows = latent.reshape(1 if granularity == "tensor" else len(latent), -1)
        torch.testing.assert_close(scale, rows.detach().abs().amax(1) / 7)
    bits = {name: quantizer.bits for name, quantizer in quantizers.quantizers(model).items()}
    assert bits.pop("input0") == 8
    assert set(bits.values()) == {4}
    assert {q.state for q in quantizers.quantizers(model).values()} == {"quantize"}


def test_a_run_that_is_interrupted_in_training_goes_on_to_the_same_network(data, tmp_path, monkeypatch):
    tree = {
        "model": f"{__file__}:make",
        "data": "digits",
        "threads": 1,
        "steps": [{"SimulateQuantization": {**OPTIONS, "epochs": 3, "delay": 0.5}}],
    }
    recipe = parse(tree)
    _, whole, _ = compress(recipe, data, tmp_path / "whole", progress=False)

    def stop(self, epoch, model, history):
        if epoch == 1 and len(history.epochs) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DelayedRounding, "on_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            compress(recipe, data, tmp_path / "again", progress=False)
    _, again, _ = compress(recipe, data, tmp_path / "again", progress=False)
    _, loaded, _ = compress(recipe, data, tmp_path / "again", progress=False)

    for model in (again, loaded):
        mine, reference = formats.state(model)[0], formats.state(whole)[0]
        assert mine.keys() == reference.keys()
        assert all(torch.equal(value, reference[name]) for name, value in mine.items())


def test_what_was_pruned_stays_zero_and_its_norm_is_left_to_freeze_norms(float_net, data, tmp_path):
    model = copy.deepcopy(float_net)

    gs.apply(model, gs.Prune(sparsity=0.6), data)
    pruned = {name: weight == 0 for name, weight in formats.plain_parameters(model).items()}

    gs.apply(model, gs.SimulateQuantization(**OPTIONS), data)
    trained = formats.attached(model)["body.0.weight"].format
    gs.apply(model, gs.FreezeNorms(), data)

    assert trained == Sparse(values=Uniform(bits=8))
    for name in formats.attached(model):
        assert (formats.plain_parameters(model)[name][pruned[name]] == 0).all()
    rounded = operators(model, data, tmp_path / "m.goss")["QuantizeLinear"]
    assert rounded == 5  # the input, both sides of the sum, and what the two other convolutions give


def test_a_layer_left_out_is_folded_and_stays_float(float_net, data):
    model = copy.deepcopy(float_net)

    gs.apply(model, gs.SimulateQuantization(skip=["stem"], **OPTIONS), data)

    assert "stem.weight" not in formats.attached(model)
    assert isinstance(model.norm, nn.Identity)
    assert "input0" not in quantizers.quantizers(model)


def test_a_network_without_norms_is_trained_as_well(data):
    model = gs.load_model("lenet300", seed=0)

    gs.apply(model, gs.SimulateQuantization(**OPTIONS), data)

    assert len(formats.attached(model)) == 3


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"bits": 9}, "2 to 8"),
        ({"activation_bits": 1}, "2 to 8"),
        ({"granularity": "group"}, "'tensor' or 'channel'"),
        ({"patience": 3}, "before activations were rounded"),
        ({"momentum": 2}, "0 < momentum <= 1"),
        ({"delay": 2}, "a part from 0 to 1"),
    ],
)
def test_wrong_options_are_refused_at_once(options, hint):
    with pytest.raises(OptionError, match=hint):
        gs.SimulateQuantization(**options)


def test_a_network_with_nothing_to_round_is_refused(data):
    with pytest.raises(StepError, match="found no convolution or linear layer"):
        gs.apply(nn.Sequential(nn.Flatten(), nn.ReLU()), gs.SimulateQuantization(**OPTIONS), data)
