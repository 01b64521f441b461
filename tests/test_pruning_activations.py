"""Statistics where channels are read, and biases that take up what removed channels gave."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer.data import load_data
from gossamer.errors import OptionError
from gossamer.models import load_model
from gossamer.pruning import Evidence, by_fraction, score
from gossamer.pruning.activations import group_activations, layer_activations, per_unit
from gossamer.pruning.compensation import compensate_, scale_constant
from gossamer.pruning.group import Choice, Group, Member
from gossamer.training import evaluate


def group(name: str, size: int, *members: Member) -> Group:
    return Group(name, size, members, torch.ones(size, dtype=torch.bool))


def between(first: str, second: str, size: int, *, spread: int = 1, norm: str | None = None) -> Group:
    """A layer, perhaps its norm, and a layer that reads each channel at `spread` columns."""
    same = torch.arange(size)
    leaves = ("weight", "bias", "running_mean", "running_var")
    with_ = [Member(f"{norm}.{leaf}", 0, same, "with") for leaf in leaves if norm]
    reads = Member(f"{second}.weight", 1, same.repeat_interleave(spread), "in")
    return group(first, size, Member(f"{first}.weight", 0, same, "out"), *with_, reads)


def kept(size: int, *gone: int) -> Tensor:
    mask = torch.ones(size, dtype=torch.bool)
    mask[list(gone)] = False
    return mask


def masked(model: nn.Module, groups: list[Group], choice: Choice) -> nn.Module:
    """A copy in which the columns that read removed units are zero."""
    other = copy.deepcopy(model)
    for g in groups:
        for member in g.of("in"):
            gone = ~choice[g.name][member.units]
            other.get_parameter(member.name).data.index_fill_(member.dim, gone.nonzero().reshape(-1), 0)
    return other


# -- statistics ------------------------------------------------------------------------------------------------------


def inputs(*shape: int, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4 + k, *shape, generator=generator).relu() - 0.25 * (k == 0) for k in range(count)]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 2), (5,)),
        (nn.Linear(5, 2), (7, 5)),
        (nn.Conv1d(4, 2, 3), (4, 6)),
        (nn.Conv2d(6, 4, 3, padding=1, groups=2), (6, 5, 4)),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 3, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_running_sums_equal_the_statistics_of_everything_at_once(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    batches = inputs(*shape)

    found = layer_activations(nn.Sequential(layer), ["0"], batches, eps=0.1)["0"]

    channel = len(shape) - 1 if isinstance(layer, nn.Linear) else 0
    rows = torch.cat([batch.double().movedim(1 + channel, 0).flatten(1) for batch in batches], dim=1)
    assert found.count == rows.shape[1]
    torch.testing.assert_close(found.zeros, (rows.abs() <= 0.1).double().mean(dim=1))
    torch.testing.assert_close(found.mean, rows.mean(dim=1))
    torch.testing.assert_close(found.mean_abs, rows.abs().mean(dim=1))
    torch.testing.assert_close(found.square, rows.square().mean(dim=1))
    torch.testing.assert_close(found.variance, rows.var(dim=1, correction=0))
    torch.testing.assert_close(found.lowest, rows.amin(dim=1))


def test_no_more_batches_are_read_than_asked_for() -> None:
    def endless():
        while True:
            yield torch.ones(2, 3)

    found = layer_activations(nn.Sequential(nn.Linear(3, 1)), ["0"], endless(), max_batches=4)

    assert found["0"].count == 8


def test_the_network_is_watched_in_eval_mode_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2)).train()
    before = copy.deepcopy(model.state_dict())

    found = layer_activations(model, ["2"], [torch.ones(2, 3)])["2"]

    torch.testing.assert_close(found.mean, torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_column_of_a_grouped_convolution_stands_for_a_channel_of_every_group() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 5.0, 6.0, 7.0])  # two groups of three channels
    member = Member("c.weight", 1, torch.tensor([0, 1, -1]), "in")

    assert per_unit(values, member, 2).tolist() == [3.0, 4.0]


def test_only_layers_that_read_a_group_are_watched() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 2))

    found = group_activations(model, [between("0", "2", 4)], [torch.ones(2, 3)])

    assert list(found) == ["2"]


def test_a_layer_whose_input_channels_are_not_known_is_refused() -> None:
    with pytest.raises(OptionError, match="0: the input channels of Embedding are not known"):
        layer_activations(nn.Sequential(nn.Embedding(3, 4)), ["0"], [torch.zeros(2, dtype=torch.long)])


# -- compensation ----------------------------------------------------------------------------------------------------


def constant_units(layer: nn.Module, *units: int) -> None:
    """Let units of a layer give its bias, whatever comes in."""
    with torch.no_grad():
        for unit in units:
            layer.weight[unit] = 0


@pytest.mark.parametrize("convolutions", [1, 2])
def test_constant_units_go_without_any_change_of_the_outputs(convolutions: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=convolutions), nn.Flatten(), nn.Linear(36, 3)
    )
    constant_units(model[0], 1, 3)
    units = torch.arange(6) if convolutions == 1 else torch.tensor([0, 1, 2])
    maker = Member("0.weight", 0, units.repeat(convolutions) if convolutions == 2 else units, "out")
    g = group("0", len(units), maker, Member("2.weight", 1, units, "in"))
    if convolutions == 2:  # unit 1 is channels 1 and 4
        constant_units(model[0], 4)
    choice = {"0": kept(len(units), 1)}
    x = torch.randn(5, 2, 7, 7)
    before = model(x)
    means = {name: a.mean for name, a in group_activations(model, [g], [x]).items()}

    report = compensate_(model, [g], choice, means)

    torch.testing.assert_close(masked(model, [g], choice)(x), before, atol=1e-6, rtol=1e-5)
    assert list(report.terms) == ["2.bias"]
    assert not report.added


def test_behind_a_zero_padded_convolution_only_the_border_changes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    constant_units(model[0], 2)
    model[0].bias.data[2] = 0.7
    g, choice, x = between("0", "2", 4), {"0": kept(4, 2)}, torch.randn(2, 2, 6, 6)
    before = model(x)
    means = {name: a.mean for name, a in group_activations(model, [g], [x]).items()}

    compensate_(model, [g], choice, means)

    change = (masked(model, [g], choice)(x) - before).detach().abs()
    assert float(change[:, :, 1:-1, 1:-1].max()) < 1e-6
    assert float(change[:, :, 0].max()) > 1e-3


@pytest.mark.parametrize("units", [(0,), (1, 4), (0, 2, 3)])
def test_the_mean_of_every_output_stays_and_the_squared_error_falls_by_the_square_of_the_mean(units) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 9, 4))
    g, choice, x = between("0", "3", 5, spread=9), {"0": kept(5, *units)}, torch.randn(50, 2, 5, 5)
    before, plain = model(x), masked(model, [g], choice)(x)
    means = {name: a.mean for name, a in group_activations(model, [g], [x]).items()}

    compensate_(model, [g], choice, means)

    after = masked(model, [g], choice)(x)
    torch.testing.assert_close(after.mean(dim=0), before.mean(dim=0), atol=1e-5, rtol=1e-4)
    shift = (plain - before).mean(dim=0).square().sum()
    errors = [(y - before).square().sum(dim=1).mean() for y in (plain, after)]
    torch.testing.assert_close(errors[1], errors[0] - shift, atol=1e-5, rtol=1e-3)


def test_without_a_bias_the_norm_behind_takes_the_term_and_without_a_norm_a_bias_is_made() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 2)
    ).eval()
    model[3].running_mean.normal_()
    model[3].running_var.uniform_(0.5, 2)
    constant_units(model[0], 3)
    model[0].bias.data[3] = 0.8
    bare = copy.deepcopy(model)
    g, choice, x = between("0", "2", 4), {"0": kept(4, 3)}, torch.randn(6, 3)
    before = model(x)
    means = {name: a.mean for name, a in group_activations(model, [g], [x]).items()}

    with_norm = compensate_(model, [g], choice, means, norms=Evidence(model, [g], [(x, None)]).norms)
    without = compensate_(bare, [g], choice, means)

    assert list(with_norm.terms) == ["3.running_mean"]
    assert list(without.terms) == ["2.bias"]
    assert without.added == ["2"]
    for changed in (model, bare):
        torch.testing.assert_close(masked(changed, [g], choice)(x), before, atol=1e-6, rtol=1e-5)


def test_two_groups_that_one_layer_reads_are_both_compensated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    constant_units(model[0], 1, 4)
    halves = []
    for name, units in (("a", [0, 1, 2, -1, -1, -1]), ("b", [-1, -1, -1, 0, 1, 2])):
        owned = torch.tensor(units)
        halves.append(group(name, 3, Member("0.weight", 0, owned, "out"), Member("2.weight", 1, owned, "in")))
    x = torch.randn(4, 3)
    before = model(x)
    means = {name: a.mean for name, a in group_activations(model, halves, [x]).items()}

    compensate_(model, halves, {"a": kept(3, 1), "b": kept(3, 1)}, means)

    model[2].weight.data[:, [1, 4]] = 0
    torch.testing.assert_close(model(x), before, atol=1e-6, rtol=1e-5)


def test_missing_means_and_transposed_readers_are_told() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    wide = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 2, 2))
    reads = Member("1.weight", 0, torch.arange(4), "in")
    transposed = group("0", 4, Member("0.weight", 0, torch.arange(4), "out"), reads)

    with pytest.raises(OptionError, match="1: compensation needs the mean of each of its 4 input channels"):
        compensate_(model, [between("0", "1", 4)], {"0": kept(4, 1)}, {})
    report = compensate_(wide, [transposed], {"0": kept(4, 1)}, {})

    assert "transposed" in report.skipped["1"]
    assert not report.terms


def test_what_a_norm_with_gamma_zero_leaves_behind_moves_into_the_next_bias() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5 * 4, 3)
    ).eval()
    model[1].bias.data.copy_(torch.tensor([0.5, -0.5, 0.3, 1.0, 0.2]))
    model[1].weight.data[[0, 1, 3]] = 0  # constants 0.5, 0 and 1
    g, choice, x = between("0", "5", 5, spread=4, norm="1"), {"0": kept(5, 0, 1, 3)}, torch.randn(4, 2, 6, 6)
    before = model(x)

    compensate_(model, [g], choice, scale_constant(model, g))

    torch.testing.assert_close(masked(model, [g], choice)(x), before, atol=1e-6, rtol=1e-5)


def test_the_constant_behind_added_norms_must_be_measured() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    same = torch.arange(3)
    norms = [Member(f"{at}.weight", 0, same, "with") for at in (1, 2)]
    g = group("0", 3, Member("0.weight", 0, same, "out"), *norms, Member("3.weight", 1, same, "in"))

    with pytest.raises(OptionError, match="found 2 norms"):
        scale_constant(model, g)


# -- neuron pruning on MNIST -----------------------------------------------------------------------------------------


def scoring_batches(count: int = 2) -> list[tuple[Tensor, Tensor]]:
    data = load_data("mnist")
    pictures = [data.train.take(slice(256 * k, 256 * k + 256)) for k in range(count)]
    return [(torch.from_numpy(data.preprocess(x)), torch.from_numpy(y)) for x, y in pictures]


def lenet5_groups() -> list[Group]:
    return [between("conv2", "ip1", 50, spread=16), between("ip1", "ip2", 500)]


def error_without(model: nn.Module, choice: Choice, means: dict[str, Tensor] | None = None) -> float:
    """Test error (percent of 1000 pictures) when the removed units are gone, compensated or not."""
    model, data = copy.deepcopy(model), load_data("mnist")
    if means is not None:
        compensate_(model, lenet5_groups(), choice, means)
    smaller = masked(model, lenet5_groups(), choice)
    return 100 * (1 - evaluate(smaller, data.test.subset(1000), data.preprocess).accuracy)


def test_masked_neurons_and_removed_neurons_give_the_same_logits() -> None:
    model = load_model("lenet300", seed=0)
    groups = [between("fc1", "fc2", 300), between("fc2", "fc3", 100)]
    choice = {g.name: by_fraction(score(g, Evidence(model, groups), "l2"), 0.5) for g in groups}
    one, two = (choice[name].numpy() for name in ("fc1", "fc2"))
    small = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 150), nn.ReLU(), nn.Linear(150, 50), nn.ReLU(), nn.Linear(50, 10)
    )
    values = {key: value.numpy() for key, value in model.state_dict().items()}
    with torch.no_grad():
        small[1].weight.copy_(torch.from_numpy(values["fc1.weight"][one]))
        small[1].bias.copy_(torch.from_numpy(values["fc1.bias"][one]))
        small[3].weight.copy_(torch.from_numpy(values["fc2.weight"][np.ix_(two, one)]))
        small[3].bias.copy_(torch.from_numpy(values["fc2.bias"][two]))
        small[5].weight.copy_(torch.from_numpy(values["fc3.weight"][:, two]))
        small[5].bias.copy_(torch.from_numpy(values["fc3.bias"]))

    x = scoring_batches(1)[0][0]

    torch.testing.assert_close(small(x), masked(model, groups, choice)(x), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["l2", "variance"])
def test_scored_neurons_with_compensation_cost_less_than_random_ones_and_less_than_without(
    criterion: str,
) -> None:
    """At 30 and 50 %. At 70 % in one shot the means drown what is left, and compensation doubles the error."""
    model, groups = load_model("lenet5", "lenet5_caffe_mnist"), lenet5_groups()
    evidence = Evidence(model, groups, scoring_batches())
    means = {layer: a.mean for layer, a in evidence.activations.items()}

    for ratio in (0.3, 0.5):
        choice = {g.name: by_fraction(score(g, evidence, criterion), ratio) for g in groups}
        random = []
        for seed in range(3):
            chance = Evidence(model, groups, seed=seed)
            picks = {g.name: by_fraction(score(g, chance, "random"), ratio) for g in groups}
            random.append(error_without(model, picks))
        plain, compensated = error_without(model, choice), error_without(model, choice, means)
        assert compensated < float(np.mean(random)), (ratio, compensated, random)
        assert compensated <= plain, (ratio, compensated, plain)


def test_neurons_that_are_always_zero_go_without_any_change() -> None:
    model, groups = load_model("lenet5", "lenet5_caffe_mnist"), lenet5_groups()
    with torch.no_grad():
        model.ip1.bias[:40] -= 100.0
    batches = scoring_batches(1)
    scores = score(groups[1], Evidence(model, groups[1:], batches), "apoz")
    choice = {"conv2": kept(50), "ip1": scores > 0}

    smaller = masked(model, groups, choice)

    assert int((scores == 0).sum()) >= 40
    x = batches[0][0]
    assert torch.equal(smaller(x), model(x))
