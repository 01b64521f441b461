"""Binarize(padding="one"): +1 around images of signs, in training, in the file, on bits and dense."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gossamer as gs
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, runtime, stage
from gossamer.blocks.surround import surround_, zeros_around
from gossamer.data import load_data
from gossamer.errors import OptionError, StepError
from gossamer.runtime import lower
from gossamer.steps import Binarize, Context, FreezeNorms

EXAMPLE = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits():
    """The bundled digits, small splits."""
    full = load_data("digits")
    few = {name: getattr(full, name).subset(range(256)) for name in ("train", "validation", "test")}
    return dataclasses.replace(full, **few)


class Net(nn.Module):
    """Convolutions of signs with padding in numbers, "same" and none, one of floats, and one in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False)
        self.numbers = nn.Conv2d(12, 24, (3, 5), padding=(1, 2), bias=False)
        self.same = nn.Conv2d(24, 24, (5, 3), padding="same", dilation=(1, 2), groups=3, bias=False)
        self.floats = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.bare = nn.Conv2d(24, 16, 3, bias=False)
        self.linear = nn.Linear(16 * 5 * 5, 10)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (12, 24, 24, 24, 16))
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relus[0](self.norms[0](self.stem(x)))
        x = self.relus[1](self.norms[1](self.numbers(x)))
        x = self.norms[2](F.max_pool2d(self.same(x), 2))
        x = self.norms[3](self.floats(x)) + x  # of floats
        x = self.relus[2](x)
        x = self.relus[3](self.norms[4](self.bare(x)))
        return self.linear(x.flatten(1))


def network() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


STEP = Binarize(
    epochs=1, lr=0.01, teacher=None, weights="XNOR", activations="sign", padding="one", skip=["linear"]
)


@pytest.fixture(scope="module")
def trained(digits):
    """(model, context)"""
    context = Context(data=digits, example=EXAMPLE)
    return STEP.apply(network(), context).eval(), context


def test_convolutions_that_read_signs_pad_with_one(trained):
    model, context = trained

    assert [edit for edit in context.edits if "padded" in edit] == [
        {"padded": "numbers", "around": [2, 2, 1, 1]},
        {"padded": "same", "around": [2, 2, 2, 2]},
    ]
    for layer in (model.numbers, model.same):
        assert layer.padding == (0, 0)
        assert isinstance(layer.pad, nn.ConstantPad2d)
        assert layer.pad.value == 1
    assert model.floats.padding == (1, 1)
    assert {
        "name": "floats",
        "reason": "keeps its zero padding: what it reads are no signs",
    } in context.skipped


def test_ones_lie_around_what_the_layers_read(trained):
    model, _ = trained
    x = torch.where(torch.randn(2, 12, 6, 7) >= 0, 1.0, -1.0)

    got = model.numbers(x)

    wanted = F.conv2d(F.pad(x, (2, 2, 1, 1), value=1.0), model.numbers.weight)
    assert torch.equal(got, wanted)
    assert torch.equal(model.numbers(input=x), wanted)


def test_a_rebuilt_or_copied_model_is_the_same(trained):
    model, context = trained
    tensors, trees = formats.state(model)
    known = {"XNOR": gs.methods.XNOR}

    again = STEP.rebuild(network(), context.edits)
    formats.restore(again, tensors, {name: formats.from_dict(tree, known) for name, tree in trees.items()})

    assert torch.equal(again.eval()(EXAMPLE), model(EXAMPLE))
    assert torch.equal(copy.deepcopy(model)(EXAMPLE), model(EXAMPLE))
    assert torch.equal(formats.baked(model)(EXAMPLE), model(EXAMPLE))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("norms", ["kept", "frozen"])
def test_the_file_gives_what_the_model_gives(trained, digits, tmp_path, threads, norms):
    model, batch = trained[0], digits.batch(128)
    if norms == "frozen":
        model = FreezeNorms(fold=False).apply(copy.deepcopy(model), Context(example=EXAMPLE))
    packed = gs.pack(model, tmp_path / "m.goss", EXAMPLE)
    with torch.no_grad():
        wanted = model(torch.from_numpy(batch)).numpy()

    for kernels in ("binary", "dense"):
        got = runtime.open(packed.path, kernels=kernels, threads=threads)(batch)
        assert (got.argmax(1) == wanted.argmax(1)).all()
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_padding_is_that_of_the_operators(trained, tmp_path):
    packed = gs.pack(trained[0], tmp_path / "m.goss", EXAMPLE)
    with artifact.Reader(packed.path) as reader:
        nodes = onnx.load_from_string(lower.plan(reader, kernels="binary").model).graph.node

    found = {
        n.name: {a.name: tuple(a.ints) for a in n.attribute} for n in nodes if n.op_type.startswith("Binary")
    }

    assert found["numbers.weight"]["pad_value"] == (1,)
    assert found["numbers.weight"]["pads"] == (1, 2, 1, 2)
    assert found["same.weight"]["pad_value"] == (1,)
    assert found["same.weight"]["pads"] == (2, 2, 2, 2)
    assert found["bare.weight"]["pads"] == (0, 0, 0, 0)
    assert not [n for n in nodes if n.op_type == "Pad"]


def test_a_stage_that_is_read_again_keeps_the_padding(trained, tmp_path):
    model, context = trained

    stage.save(tmp_path, "01-Binarize", model, {"edits": context.edits})
    again = stage.load(tmp_path, "01-Binarize", network, [], STEP)

    assert again.model.numbers.pad.value == 1
    assert torch.equal(again.model.eval()(EXAMPLE), model(EXAMPLE))


def test_a_trial_pads_too(digits):
    context = Context(data=digits, trial=True)

    STEP.apply(network(), context)

    assert [edit["padded"] for edit in context.edits if "padded" in edit] == ["numbers", "same"]


def test_zero_is_the_default_and_leaves_padding_alone(digits):
    context = Context(data=digits, trial=True)

    model = dataclasses.replace(STEP, padding="zero").apply(network(), context)

    assert Binarize().padding == "zero"
    assert model.numbers.padding == (1, 2)
    assert not [edit for edit in context.edits if "padded" in edit]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "one"}, "padding 'one'.*activations is None; expected 'sign'. Use activations: sign"),
        ({"padding": "one", "activations": "multi-sign"}, "activations is 'multi-sign'; expected 'sign'"),
        ({"padding": "ones", "activations": "sign"}, "unknown padding 'ones'.*one"),
        ({"padding": 1, "activations": "sign"}, "unknown padding 1"),
    ],
)
def test_wrong_options_say_what_is_expected(options, message):
    with pytest.raises(OptionError, match=message):
        Binarize(**options)


def test_a_network_without_padding_is_refused(digits):
    bare = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10)
    )

    with pytest.raises(StepError, match="no Conv2d that is binarized puts zeros around an image of signs"):
        Binarize(teacher=None, activations="sign", padding="one").apply(
            bare, Context(data=digits, trial=True)
        )


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 2},
        {"padding": (0, 3)},
        {"padding": "valid"},
        {"padding": "same", "dilation": 2},
        {"kernel_size": (2, 4), "padding": "same"},
        {"kernel_size": (4, 3), "padding": "same", "dilation": (3, 2)},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_zeros_before_a_convolution_are_those_around_it(options):
    layer = nn.Conv2d(3, 4, **{"kernel_size": 3} | options)
    x = torch.randn(2, 3, 11, 9)
    before = layer(x)

    surround_(layer, zeros_around(layer), 0.0)

    torch.testing.assert_close(layer(x), before)


def test_other_padding_is_no_zeros():
    assert zeros_around(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")) is None
