"""Binarize: signs through a recipe's step, in the file, and in the session without torch."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer import formats, runtime
from gossamer.blocks import MultiSign, Sign
from gossamer.data import load_data
from gossamer.errors import OptionError, StepError
from gossamer.export import pack
from gossamer.models import MnistMLP, load_model
from gossamer.steps import Binarize, Context

EXAMPLE = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits():
    """The bundled digits, small splits."""
    full = load_data("digits")
    few = {name: getattr(full, name).subset(range(256)) for name in ("train", "validation", "test")}
    return dataclasses.replace(full, **few)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 48, bias=False), nn.BatchNorm1d(48), nn.ReLU()),
        *(nn.Linear(48, 32, bias=False), nn.BatchNorm1d(32), nn.Hardtanh()),
        nn.Linear(32, 10),
    )


def binarized(digits, model=None, **options):
    context = Context(data=digits, example=EXAMPLE)
    step = Binarize(epochs=1, lr=0.01, teacher=None, **options)
    return step.apply(network() if model is None else model, context), context


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"weights": "XNOR"}, 2),
        ({"weights": "BinaryConnect", "weight_options": {"stochastic": True}}, 2),
        ({"weights": "BNN", "activations": "sign"}, 2),
        ({"weights": "BiReal", "activations": "sign", "activation_options": {"slope": "approx"}}, 2),
        ({"weights": "TWN"}, 3),
        ({"weights": "TTQ"}, 3),
        ({"weights": "ABCNet", "weight_options": {"bases": 2}, "activations": "multi-sign"}, 4),
    ],
    ids=lambda value: "-".join(str(v) for v in value.values()) if isinstance(value, dict) else None,
)
def test_the_file_computes_what_the_network_did(digits, tmp_path, options, values):
    model, _ = binarized(digits, **options)
    batch = digits.batch(64)

    packed = pack(model, tmp_path / "m.goss", EXAMPLE)

    assert max(len(row.unique()) for row in model[4].weight.detach()) <= values
    with torch.no_grad():
        expected = model(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(runtime.open(packed.path)(batch), expected, atol=1e-4)


def test_first_and_last_layer_stay_float_unless_asked_for(digits):
    inner, context = binarized(digits)
    everything, _ = binarized(digits, edges=True)
    named, _ = binarized(digits, layers=["7"])

    assert list(formats.attached(inner)) == ["4.weight"]
    assert {skipped["name"] for skipped in context.skipped} == {"1.weight", "7.weight"}
    assert list(formats.attached(everything)) == ["1.weight", "4.weight", "7.weight"]
    assert list(formats.attached(named)) == ["7.weight"]


def test_activations_that_signs_read_become_signs_and_rebuild_repeats_it(digits):
    step = {"weights": "ABCNet", "activations": "multi-sign", "activation_options": {"bases": 2}}
    model, context = binarized(digits, **step)
    tensors, trees = formats.state(model)

    known = {"ABCNet": gs.methods.ABCNet}
    again = Binarize(**step).rebuild(network(), context.edits)
    formats.restore(again, tensors, {name: formats.from_dict(tree, known) for name, tree in trees.items()})

    assert [type(model[i]) for i in (3, 6)] == [MultiSign, nn.Hardtanh]  # the classifier after 6 stays float
    assert [edit["activation"] for edit in context.edits] == ["3"]
    assert torch.equal(again.eval()(EXAMPLE), model(EXAMPLE))


def test_the_papers_network_with_signs_everywhere_has_only_signs(digits):
    model, _ = binarized(digits, MnistMLP(width=32), weights="BNN", activations="sign", edges=True)

    assert sum(isinstance(module, Sign) for module in model.modules()) == 3
    for index in (0, 3, 6, 9):
        weight = model.layers[index].weight.detach()
        assert weight.abs().unique().tolist() == [1.0]
        assert float(formats.parts_of(model, f"layers.{index}.weight")[0].detach().abs().max()) <= 1


def test_norms_are_measured_with_the_final_weights(digits):
    model, _ = binarized(digits, weights="BNN")

    with torch.no_grad():
        x = torch.cat(
            [torch.from_numpy(b) for b, _ in digits.train.batches(128, preprocess=digits.preprocess)]
        )
        inputs = model[:5](x)

    torch.testing.assert_close(model[5].running_mean, inputs.mean(dim=0), atol=0.05, rtol=0.05)


def test_a_trial_touches_one_batch_and_keeps_its_edits(digits):
    context = Context(data=digits, trial=True)

    Binarize(activations="sign", teacher=None).apply(network(), context)

    assert [edit["kind"] for edit in context.edits] == ["sign"]


def test_functional_activations_cannot_be_replaced(digits):
    with pytest.raises(StepError, match=r"no ReLU.*F\.relu.*activations: null"):
        binarized(digits, load_model("lenet300", seed=0), activations="sign")


def test_lenet_without_signs_of_activations_is_binarized(digits):
    model, _ = binarized(digits, load_model("lenet300", seed=0))

    assert list(formats.attached(model)) == ["fc2.weight"]


def test_a_network_without_inner_layers_is_refused(digits):
    with pytest.raises(StepError, match="between the first and the last"):
        binarized(digits, nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))


def test_a_folded_norm_keeps_the_codes_of_signs(digits):
    model, context = binarized(digits)
    before = copy.deepcopy(model)

    folded = gs.FreezeNorms().apply(model, context)

    codes = folded[4].weight.detach() / formats.parts_of(folded, "4.weight")[1][:, None]
    assert torch.allclose(codes.abs(), torch.ones_like(codes))
    assert torch.allclose(folded(EXAMPLE), before(EXAMPLE), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "XNOR-Net"}, "unknown weights 'XNOR-Net'.*XNOR"),
        ({"weights": "LSQ"}, "unknown weights 'LSQ'"),
        ({"weight_options": {"center": True}}, "no option 'center'.*centre"),
        ({"weights": "Binary", "weight_options": {"scale": "row"}}, "unknown scale"),
        ({"activations": "signs"}, "unknown activations 'signs'.*sign"),
        ({"activations": "sign", "activation_options": {"bases": 2}}, "no option 'bases'"),
        ({"activation_options": {"bases": 2}}, "activations is null"),
    ],
)
def test_wrong_options_say_what_is_expected(options, message):
    with pytest.raises(OptionError, match=message):
        Binarize(**options)
