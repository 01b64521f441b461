"""Steps that round a network: where quantizers go, what stays float, and that earlier steps stay kept."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from gossamer import formats, quantizers
from gossamer.data import Split
from gossamer.errors import GossamerError, ModelError, OptionError, StepError
from gossamer.formats import Codebook, Sparse, Uniform
from gossamer.methods.float_twin import float_twin
from gossamer.steps import Context


class Residual(nn.Module):
    """A functional addition, a module used twice, a concatenation, a pool and a mean."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        y = self.twice(F.relu(self.twice(x)))
        x = torch.cat([F.relu(x + y), x], 1)
        return self.head(x.mean((2, 3)))


class Fickle(nn.Module):
    """Another path for other values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x):
        x = self.linear(x.flatten(1))
        return F.relu(x) if x.sum() > 0 else x * 2


@pytest.fixture(scope="module")
def data():
    """The bundled digits, small splits."""
    digits = gs.load_data("digits")
    few = {name: getattr(digits, name).subset(range(200)) for name in ("train", "validation", "test")}
    return dataclasses.replace(digits, **few)


@pytest.fixture
def trained(data):
    torch.manual_seed(0)
    model = Residual()
    gs.apply(model, gs.Train(epochs=2, lr=3e-3, batch_size=32), data)
    return model.eval()


def names(model):
    return list(quantizers.quantizers(model))


def test_quantizers_sit_behind_activations_and_on_both_sides_of_joins(data):
    model = Residual().eval()
    calls = quantizers.record(model, (torch.zeros(1, 1, 28, 28),))

    placement = quantizers.place(calls)

    kinds = {place.name: place.kind for place in placement.places}
    assert list(kinds.values()).count("input") == 1
    # stem and its ReLU: one; each use of `twice`: one; the sum: one, after its ReLU; concatenation and mean: one each
    assert [calls.calls[p.call].function for p in placement.places if p.call >= 0] == [
        *("relu", "relu", "conv2d", "relu", "cat", "mean")
    ]
    assert placement.layers == ("stem", "twice", "head")


def test_the_network_is_the_same_while_quantizers_are_off(trained):
    x = torch.randn(4, 1, 28, 28)
    before = trained(x)
    placement = quantizers.place(quantizers.record(trained, (x,)))

    quantizers.attach(trained, placement, lambda place: quantizers.Affine())

    assert torch.equal(trained(x), before)
    assert list(dict(trained.named_parameters())) == list(dict(Residual().named_parameters()))
    quantizers.detach(trained)
    assert type(trained) is Residual
    assert torch.equal(trained(x), before)


def test_a_network_that_changes_its_path_is_refused():
    model = Fickle().eval()
    x = torch.ones(1, 1, 28, 28)
    path = quantizers.record(model, (x,))
    quantizers.attach(model, quantizers.place(path), lambda place: quantizers.Affine())
    first = model(x)
    nn.init.constant_(model.linear.bias, -1e3 if path.calls[-1].kind == "activation" else 1e3)

    with pytest.raises(ModelError, match="chooses its path by values"):
        model(x)
    assert first.shape == (1, 10)


def test_calibrated_integers_are_as_right_as_the_float_network(trained, data):
    from gossamer.training import evaluate

    before = evaluate(trained, data.test, data.preprocess).accuracy
    gs.apply(trained, [gs.Calibrate(samples=64), gs.Quantize(bits=8, granularity="channel")], data)

    assert isinstance(trained.norm, nn.Identity)
    assert len(names(trained)) == 7
    assert evaluate(trained, data.test, data.preprocess).accuracy == pytest.approx(before, abs=0.02)


def test_a_layer_left_out_is_float_on_both_sides(trained, data):
    gs.apply(trained, [gs.Calibrate(samples=16, skip=["stem"])], data)

    assert "input0" not in names(trained)
    assert "call1" in names(trained)  # the next convolution reads it


@pytest.mark.parametrize("weights", ["prune", "share", "both"])
def test_what_was_pruned_stays_zero_and_the_file_gives_the_same_answers(trained, data, weights, tmp_path):
    steps = [gs.FreezeNorms()]
    steps += [gs.Prune(sparsity=0.7)] if weights != "share" else []
    steps += [gs.Share(bits=4)] if weights != "prune" else []
    steps += [gs.Quantize(bits=8)] if weights == "prune" else []
    gs.apply(trained, [*steps, gs.Calibrate(samples=64)], data)
    zeros = {name: value.detach() == 0 for name, value in formats.plain_parameters(trained).items()}

    packed = gs.pack(trained, tmp_path / "m.goss", data.batch(2))

    x = data.batch(32)
    wanted = trained(torch.from_numpy(x)).detach().numpy()
    answer = gs.open(packed.path)(x)
    assert (wanted.argmax(1) == answer.argmax(1)).mean() >= 0.95
    if weights != "share":
        assert zeros["twice.weight"].float().mean() > 0.5
    entry = formats.attached(trained)["twice.weight"].format
    assert isinstance(entry, Sparse if weights != "share" else Codebook)


def test_training_with_rounding_gives_a_network_that_packs(trained, data, tmp_path):
    step = gs.QuantizeAware(bits=4, epochs=1, lr=1e-3, batch_size=32, samples=32)

    gs.apply(trained, [step, gs.FreezeNorms()], data)
    packed = gs.pack(trained, tmp_path / "m.goss", data.batch(2))

    assert {q.bits for q in quantizers.quantizers(trained).values()} == {4, 8}
    assert isinstance(formats.attached(trained)["twice.weight"].format, Uniform)
    x = data.batch(32)
    agree = trained(torch.from_numpy(x)).argmax(1).numpy() == gs.open(packed.path)(x).argmax(1)
    assert agree.mean() >= 0.9


@pytest.mark.parametrize(
    ("weights", "activations", "options"),
    [
        ("DoReFa", "PACT", {"rescale": True}),
        ("QIL", "DoReFa", {"rescale": True, "fit": "mse"}),
        ("LSQ", "LSQ", {}),
    ],
)
def test_methods_are_named_as_their_papers_name_them_and_run_on_integers(
    trained, data, weights, activations, options, tmp_path
):
    step = gs.QuantizeAware(
        bits=4,
        weights=weights,
        activations=activations,
        weight_options=options,
        activation_options={"reach": None} if activations == "DoReFa" else {},
        epochs=1,
        lr=1e-3,
        batch_size=32,
        samples=32,
        weight_decay=1e-4,
    )

    gs.apply(trained, [step, gs.FreezeNorms()], data)
    packed = gs.pack(trained, tmp_path / "m.goss", data.batch(2))

    assert packed.notes == ()  # a layer that had to run in floats would be named here
    assert activations in {quantizer.method for quantizer in quantizers.quantizers(trained).values()}
    x = data.batch(32)
    agree = trained(torch.from_numpy(x)).argmax(1).numpy() == gs.open(packed.path)(x).argmax(1)
    assert agree.mean() >= 0.9


def test_a_second_training_with_fewer_bits_goes_on_from_the_first(trained, data):
    first = gs.QuantizeAware(bits=5, epochs=1, lr=1e-4, batch_size=64, samples=32)
    second = dataclasses.replace(first, bits=3)
    once = copy.deepcopy(trained)
    gs.apply(once, [first], data)
    latent = formats.parts_of(once, "twice.weight")[0].detach().clone()

    gs.apply(once, [second], data)

    assert formats.attached(once)["twice.weight"].format.bits == 3
    moved = (formats.parts_of(once, "twice.weight")[0].detach() - latent).abs().mean()
    assert moved < 0.1 * latent.abs().mean()  # a fresh start from rounded weights would be far away


def test_protect_makes_layers_float_until_the_loss_is_small(trained, data):
    rounded = copy.deepcopy(trained)
    steps = [gs.Calibrate(samples=32, bits=2), gs.Quantize(bits=2, granularity="channel")]

    gs.apply(rounded, [*steps, gs.Protect(max_drop=100)], data)
    assert len(formats.attached(rounded)) == 3
    gs.apply(trained, [*steps, gs.Protect(max_drop=0.5, most=1.0, samples=32)], data)

    assert len(formats.attached(trained)) < 3
    assert len(names(trained)) < 7


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: gs.Calibrate(bits=9), "2 to 8"),
        (lambda: gs.Calibrate(observer="minimax"), "Did you mean 'minmax'"),
        (lambda: gs.Calibrate(samples=0), "at least 1"),
        (lambda: gs.QuantizeAware(weights="LSD"), "Did you mean 'LSQ'"),
        (lambda: gs.QuantizeAware(activations="LearntStep"), "LearnedStep"),
        (lambda: gs.QuantizeAware(weight_options={"bitts": 2}), "no option 'bitts'"),
        (lambda: gs.QuantizeAware(weights="DoReFa"), "do not fit int8.*bits: 7, or weights: LSQ"),
        (lambda: gs.Protect(max_drop=-1), "at least 0"),
    ],
)
def test_wrong_options_are_refused_at_once(make, hint):
    with pytest.raises(OptionError, match=hint):
        make()


def test_calibration_data_with_nan_is_refused(trained, data):
    inputs = np.array(data.train.inputs[np.arange(200)], np.float32)
    inputs[3] = np.nan
    broken = dataclasses.replace(data, train=dataclasses.replace(data.train, inputs=inputs))

    with pytest.raises(GossamerError, match=r"NaN"):
        gs.apply(trained, gs.Calibrate(samples=200), broken)


def test_a_network_without_integer_layers_and_protect_without_quantizers_are_refused(data):
    with pytest.raises(StepError, match="found no convolution"):
        gs.apply(nn.Sequential(nn.Flatten(), nn.ReLU()), gs.Calibrate(samples=8), data)
    with pytest.raises(StepError, match="after Calibrate"):
        gs.Protect().apply(Residual(), Context(data=data))


def test_constant_activations_are_no_error(data):
    model = Residual().eval()
    nn.init.zeros_(model.stem.weight)

    gs.apply(model, [gs.Calibrate(samples=16), gs.Quantize(bits=8)], data)

    assert torch.isfinite(model(torch.randn(2, 1, 28, 28))).all()


@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_rounding_chosen_by_outputs_is_nearer_than_the_nearest(trained, data, method):
    gs.apply(trained, [gs.Calibrate(samples=64), gs.Quantize(bits=3, granularity="channel")], data)
    x = torch.from_numpy(data.preprocess(data.test.inputs[np.arange(100)]))
    trained.requires_grad_(False)
    wanted = float_twin(trained)(x)
    nearest = float((trained(x) - wanted).detach().square().mean())

    gs.apply(trained, gs.RoundWeights(method=method, samples=64, steps=200), data)

    assert float((trained(x) - wanted).detach().square().mean()) < nearest


def test_corrected_biases_bring_the_means_back(trained, data):
    gs.apply(trained, [gs.Calibrate(samples=64), gs.Quantize(bits=3, granularity="channel")], data)
    x = torch.from_numpy(data.preprocess(data.train.inputs[np.arange(200)]))
    wanted = float_twin(trained)(x).mean(0)
    before = float((trained(x).mean(0) - wanted).detach().abs().max())

    gs.apply(trained, gs.CorrectBias(samples=200), data)

    assert float((trained(x).mean(0) - wanted).detach().abs().max()) < 0.1 * before


def test_equalization_keeps_the_function():
    model = gs.load_model("mobilenet-small")
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    colours = gs.Data(
        name="colours",
        train=Split(np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 10, "train"),
        validation=Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10), "validation"),
        test=Split(np.zeros((10, 32, 32, 3), np.uint8), np.arange(10), "test"),
        classes=tuple("0123456789"),
        preprocess=gs.Preprocess(scale=1 / 255, color="RGB"),
    )

    gs.apply(model, gs.Equalize(relu6="replace"), colours)

    kept = [module for module in model.modules() if isinstance(module, nn.ReLU6)]
    assert len(kept) < 5  # 18 before; those whose value goes two ways stay
    torch.testing.assert_close(
        model(x), before, atol=1e-4, rtol=1e-4
    )  # no value of a fresh network reaches 6
