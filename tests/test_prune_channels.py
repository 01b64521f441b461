"""PruneChannels: what is left is smaller by the count, equals the masked network, resumes, packs, and composes."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer import formats, measure, pruning
from gossamer.data import load_data
from gossamer.errors import OptionError, StepError
from gossamer.models import load_model
from gossamer.pruning import CHANNEL_CRITERIA
from gossamer.steps import Context, FreezeNorms, Prune, PruneChannels, Quantize, Share, apply
from gossamer.steps.channel_search import METHODS
from gossamer.training import evaluate


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def lenet():
    return load_model("lenet5", "lenet5_caffe_mnist").eval()


EXAMPLE = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def run(step, model, data=None, example=EXAMPLE, **options):
    context = Context(data=data, example=example, **options)
    return step.apply(copy.deepcopy(model), context), context


@pytest.mark.parametrize(
    "criterion", [name for name in (*CHANNEL_CRITERIA, *METHODS) if name != "scale"]
)  # no norms
def test_every_criterion_gives_the_network_with_the_same_channels_masked(criterion, lenet, digits):
    layers = ["ip1"] if criterion == "apoz" else None  # it alone has a ReLU
    smaller, context = run(
        PruneChannels(ratio=0.5, scope="layer", criterion=criterion, samples=64, repair=False, layers=layers),
        lenet,
        digits,
    )
    kept = json.loads(context.edits[0]["plan"])["kept"]
    groups = pruning.find_groups(lenet, EXAMPLE)
    choice = {
        name: torch.zeros(groups[name].size).index_fill(0, torch.tensor(units), 1).bool()
        for name, units in kept.items()
    }

    with pruning.masked(lenet, choice, groups), torch.no_grad():
        masked = lenet(EXAMPLE)

    assert smaller.ip1.out_features == 250
    assert torch.allclose(smaller(EXAMPLE), masked, atol=1e-4 * float(masked.abs().max()))


def test_norm_scales_rank_the_channels_of_a_network_with_norms():
    model = load_model("resnet20", "resnet20_cifar10").eval()
    example = torch.randn(1, 3, 32, 32)

    smaller, _ = run(PruneChannels(ratio={"layer1.0.conv1": 0.5}, criterion="scale"), model, None, example)

    kept = model.layer1[0].bn1.weight.detach().abs().sort(descending=True).indices[:8].sort().values
    assert torch.equal(smaller.layer1[0].bn1.weight, model.layer1[0].bn1.weight[kept])


@pytest.mark.parametrize(("kind", "share"), [("macs", 0.5), ("macs", 0.2), ("parameters", 0.3)])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_budget_is_met_by_the_count_of_the_cut_network_and_not_by_much(kind, share, scope, lenet):
    smaller, _ = run(PruneChannels(**{kind: share, "scope": scope, "criterion": "l1"}), lenet)

    before, after = measure.profile(lenet, EXAMPLE), measure.profile(smaller, EXAMPLE)

    left = after.macs / before.macs if kind == "macs" else after.params / before.params
    assert 0.85 * share < left <= share


def test_a_size_budget_is_met_by_the_packed_file(lenet, tmp_path):
    smaller, _ = run(PruneChannels(size=0.5), lenet)

    sizes = [
        gs.pack(m, tmp_path / "model.goss", EXAMPLE) and (tmp_path / "model.goss").stat().st_size
        for m in (smaller, lenet)
    ]

    assert sizes[0] <= 0.5 * sizes[1]


def test_a_latency_budget_asks_the_clock(lenet, monkeypatch):
    asked = []

    def clock(candidate, reference, example):
        asked.append(measure.profile(candidate, example).macs / measure.profile(reference, example).macs)
        return asked[-1]  # a machine whose time is its multiply-adds

    monkeypatch.setattr("gossamer.steps.channel_costs.time_share", clock)

    smaller, _ = run(PruneChannels(latency=0.5), lenet)

    assert measure.profile(smaller, EXAMPLE).macs <= 0.5 * measure.profile(lenet, EXAMPLE).macs
    assert 3 <= len(asked) <= 8
    assert smaller.conv2.out_channels % 8 == 0  # what kernels like


@pytest.mark.parametrize("criterion", ["l1", "thinet"])
def test_the_report_lists_every_group_that_could_lose_units_with_its_widths(criterion, lenet, digits):
    step = PruneChannels(ratio={"conv2": 0.5, "ip1": 0.0}, scope="layer", criterion=criterion, samples=64)

    _, context = run(step, lenet, digits)

    assert context.notes["channels"][0]["widths"] == {"conv2": [25, 50], "ip1": [500, 500]}


def test_rounds_end_at_the_same_budget(lenet, digits):
    smaller, context = run(PruneChannels(ratio=0.75, scope="layer", rounds=2, criterion="l2"), lenet, digits)

    assert [edit["biases"] for edit in context.edits] == [[], []]
    assert smaller.conv2.out_channels == 13  # 50 -> 25 -> 13, whole channels in every round


def test_a_resumed_run_rebuilds_the_cut_network_from_the_edits(lenet, digits):
    step = PruneChannels(ratio=0.5, rounds=2, criterion="thinet", samples=64)
    smaller, context = run(step, lenet, digits)

    again = step.rebuild(load_model("lenet5"), json.loads(json.dumps(context.edits)))
    again.load_state_dict(smaller.state_dict())

    assert torch.equal(again.eval()(EXAMPLE), smaller(EXAMPLE))


@pytest.fixture(scope="module")
def pixels(digits):
    """Digits as the public LeNet-5 takes them."""
    return dataclasses.replace(digits, preprocess=gs.Preprocess(scale=1 / 255, color="L"))


def test_compensation_leaves_the_outputs_nearer_to_those_of_the_whole_network(lenet, pixels):
    x = torch.from_numpy(pixels.preprocess(pixels.validation.inputs[:200]))
    step = PruneChannels(ratio=0.5, scope="layer", criterion="variance", samples=512)

    plain, _ = run(step, lenet, pixels)
    helped, _ = run(dataclasses.replace(step, compensate=True), lenet, pixels)

    with torch.no_grad():
        errors = [float((m(x) - lenet(x)).square().mean()) for m in (plain, helped)]
    assert errors[1] < errors[0]


def test_layers_and_skip_say_which_groups_may_shrink(lenet):
    one, _ = run(PruneChannels(ratio=0.5, layers=["conv*"]), lenet)
    other, _ = run(PruneChannels(ratio=0.5, skip=["conv1"], scope="layer"), lenet)

    assert (one.ip1.out_features, one.conv1.out_channels < 20 or one.conv2.out_channels < 50) == (500, True)
    assert (other.conv1.out_channels, other.conv2.out_channels, other.ip1.out_features) == (20, 25, 250)


def test_round_to_keeps_channels_in_multiples(lenet):
    smaller, _ = run(PruneChannels(ratio=0.6, scope="layer", round_to=8), lenet)

    assert (smaller.conv1.out_channels, smaller.conv2.out_channels, smaller.ip1.out_features) == (8, 24, 200)


def test_min_width_holds_under_a_global_ranking(lenet):
    smaller, _ = run(PruneChannels(ratio=0.8, criterion="l1", min_width=0.3), lenet)

    assert smaller.conv1.out_channels >= 6
    assert smaller.conv2.out_channels >= 15
    assert smaller.ip1.out_features >= 150


class Tagger(nn.Module):
    """An LSTM between two linear layers: nothing can be cut through it."""

    def __init__(self):
        super().__init__()
        self.inner, self.rnn, self.out = nn.Linear(8, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.rnn(self.inner(x))[0][:, -1])


def test_a_network_without_a_group_is_an_error_that_names_the_walls_and_leaves_the_model_alone():
    model = Tagger().eval()
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(StepError, match=r"no group of channels is left to cut.*lstm.*rnn"):
        apply(model, [PruneChannels(ratio=0.5)], None, torch.randn(1, 5, 8))

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of ratio, threshold, macs"),
        ({"ratio": 0.5, "macs": 0.5}, "received ratio, macs"),
        ({"ratio": 1.0}, "pruned to nothing"),
        ({"ratio": {"conv1": 1.5}}, "0 <= ratio < 1"),
        ({"macs": 0}, "between 0 and 1"),
        ({"macs": 1.2}, "between 0 and 1"),
        ({"ratio": 0.5, "criterion": "l3"}, "unknown criterion 'l3'. Known: l1"),
        ({"ratio": 0.5, "scope": "model"}, "'layer' or 'global'"),
        ({"ratio": 0.5, "criterion_options": {"positions": 5}}, "has no criterion_options"),
        (
            {"ratio": 0.5, "criterion": "lasso", "criterion_options": {"block": 5}},
            "lasso has no option 'block'",
        ),
        ({"ratio": 0.5, "rounds": 0}, "rounds is a whole number"),
        ({"ratio": 0.5, "samples": 0}, "samples is a whole number"),
        ({"ratio": 0.5, "round_to": 0}, "multiple"),
        ({"ratio": 0.5, "min_width": 2}, "fraction of units"),
    ],
)
def test_wrong_options_say_what_is_expected(options, message):
    with pytest.raises(OptionError, match=message):
        PruneChannels(**options)


def test_unknown_groups_are_named_with_the_nearest(lenet):
    with pytest.raises(OptionError, match=r"no group of channels matches 'conv9'.*conv"):
        run(PruneChannels(ratio=0.5, layers=["conv9"]), lenet)


def test_a_budget_below_the_least_widths_is_an_error(lenet):
    with pytest.raises(OptionError, match="is the least that can be reached"):
        run(PruneChannels(macs=0.05, min_width=0.9), lenet)


def test_channels_come_before_formats(lenet):
    with pytest.raises(StepError, match="PruneChannels"):
        apply(copy.deepcopy(lenet), [Prune(density=0.5), PruneChannels(ratio=0.5)], None, EXAMPLE)


def test_channels_weights_shared_values_and_integers_compose_in_one_file(lenet, pixels, tmp_path):
    model = copy.deepcopy(lenet)

    apply(
        model,
        [PruneChannels(macs=0.5, epochs=1, lr=1e-3, criterion="taylor"), Prune(density=0.3), Share(bits=4)],
        pixels,
    )
    gs.pack(model, tmp_path / "model.goss", EXAMPLE)
    session = gs.open(tmp_path / "model.goss")

    assert measure.profile(model, EXAMPLE).macs <= 0.5 * measure.profile(lenet, EXAMPLE).macs
    for name, weight in formats.plain_parameters(model).items():
        if name.endswith("weight"):
            assert int((weight != 0).sum()) == weight.numel() - int(0.7 * weight.numel() + 1e-9)
            assert weight[weight != 0].unique().numel() <= 16
    assert torch.allclose(torch.from_numpy(session(EXAMPLE.numpy())), model(EXAMPLE), atol=1e-4)
    assert evaluate(model, pixels.test, pixels.preprocess).accuracy > 0.6


@pytest.mark.slow
def test_a_cut_residual_network_runs_on_integers_and_keeps_its_classes(tmp_path):
    data = load_data("cifar10")
    model = load_model("resnet20", "resnet20_cifar10").eval()
    steps = [
        PruneChannels(ratio=0.1, scope="layer", criterion="lasso", samples=128, skip=["conv1"]),
        FreezeNorms(),
        Quantize(bits=8, granularity="channel"),
    ]

    apply(model, steps, data)
    gs.pack(model, tmp_path / "model.goss", torch.from_numpy(data.batch(2)))

    part = data.validation.subset(range(500))
    assert evaluate(model, part, data.preprocess).accuracy > 0.8
    assert (tmp_path / "model.goss").stat().st_size < 270_000
