"""Weight methods after training: equalization, bias correction, AdaRound and GPTQ, each against brute force or a solve."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer import formats, quantizers
from gossamer.artifact.layouts import rebuild
from gossamer.data import load_data
from gossamer.errors import FormatError, OptionError, StepError, TrainingError
from gossamer.formats import Codebook, Sparse, Uniform
from gossamer.methods.adaround import adaround
from gossamer.methods.bias_correction import correct_biases
from gossamer.methods.cross_layer_equalization import equalize
from gossamer.methods.gptq import gptq, output_error, round_columns
from gossamer.methods.layer_graph import layer_graph
from gossamer.methods.layer_inputs import called, moments, sample, watch
from gossamer.methods.reconstruction import gram
from gossamer.methods.weight_grid import WeightGrid, write_
from gossamer.models import load_model
from gossamer.steps import Calibrate, Context
from gossamer.steps.base import weights
from rounding_samples import Cifar, Mixed, batches, correlated, example, normal, quantize

# -- layer inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["first", "grouped", "last"])
def test_sampled_inputs_times_the_weight_are_the_layer_s_outputs(layer: str) -> None:
    model = Mixed().eval()
    module = model.get_submodule(layer)
    outputs: list[Tensor] = []
    watch(model, [layer], batches(), lambda _, x, y: outputs.append(y.movedim(1, -1).reshape(-1, y.shape[1])))

    x = sample(model, [layer], batches(), positions=10**6)[layer]

    weight = module.weight.reshape(len(x), -1, x.shape[2])
    rebuilt = (x @ weight.transpose(1, 2)).permute(1, 0, 2).flatten(1) + module.bias
    expected = torch.cat(outputs)
    assert rebuilt.shape == expected.shape
    torch.testing.assert_close(rebuilt, expected, atol=1e-5, rtol=1e-5)


def test_the_same_seed_samples_the_same_places_and_another_seed_others() -> None:
    model = Mixed().eval()

    first = sample(model, ["grouped"], batches(), positions=5, seed=1)["grouped"]
    together = sample(model, ["first", "grouped"], batches(), positions=5, seed=1)["grouped"]
    other = sample(model, ["grouped"], batches(), positions=5, seed=2)["grouped"]

    assert first.shape == (4, 3 * 4 * 5, 2 * 3 * 2)
    assert torch.equal(first, together)
    assert not torch.equal(first, other)


def test_a_forward_ends_right_after_the_last_layer_that_was_asked_for() -> None:
    model = Mixed().eval()
    runs = {"grouped": 0, "last": 0}
    for name in runs:
        model.get_submodule(name).register_forward_hook(lambda m, a, y, n=name: runs.update({n: runs[n] + 1}))

    sample(model, ["first"], batches(5))
    after_first = dict(runs)
    sample(model, ["first", "grouped"], batches(5))

    assert after_first == {"grouped": 1, "last": 1}  # one sample, to count the calls of the layer
    assert runs == {"grouped": 7, "last": 2}


def test_a_layer_that_is_called_twice_shows_both_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(self.layer(x) + 1)
            return y

    model, x = Twice(), normal(6, 4)

    found = sample(model, ["layer"], [x])["layer"][0]

    with torch.no_grad():
        assert torch.equal(found, torch.cat([x, model.layer(x) + 1]))


def test_inputs_come_from_the_prefix_as_it_is_quantized() -> None:
    model = Mixed().eval()
    quantized = quantize(model, bits=2)

    seen = sample(quantized, ["last"], batches())["last"]

    baked = formats.baked(quantized).eval()
    assert torch.equal(seen, sample(baked, ["last"], batches())["last"])
    assert not torch.equal(seen, sample(model, ["last"], batches())["last"])


def test_moments_are_those_of_all_outputs_and_layers_come_in_the_order_of_their_calls() -> None:
    model = Mixed().eval()
    outputs: list[Tensor] = []
    watch(model, ["grouped"], batches(), lambda _, x, y: outputs.append(y.double()))

    found = moments(model, ["last", "grouped"], batches())

    assert list(found) == called(model, ["last", "grouped"], batches()) == ["grouped", "last"]
    whole = torch.cat(outputs).movedim(1, 0).flatten(1)
    torch.testing.assert_close(found["grouped"].mean, whole.mean(1))
    torch.testing.assert_close(found["grouped"].std, whole.std(1, correction=0))


def test_an_unknown_layer_one_that_never_runs_and_no_data_are_told() -> None:
    model = Mixed()
    model.idle = nn.Linear(2, 2)
    model.norm = nn.BatchNorm2d(8)

    with pytest.raises(OptionError, match=r"no layer 'frist'. Did you mean 'first'"):
        moments(model, ["frist"], batches())
    with pytest.raises(StepError, match="idle: Mixed never calls this layer"):
        moments(model, ["idle"], batches())
    with pytest.raises(StepError, match="no calibration batches"):
        moments(model, ["first"], [])
    with pytest.raises(FormatError, match="norm: BatchNorm2d cannot be reconstructed"):
        sample(model, ["norm"], batches())


# -- the grid of a weight ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"bits": 4}, {"bits": 3, "granularity": "channel"}, {"bits": 4, "granularity": "group", "group": 5}],
    ids=["tensor", "channel", "group"],
)
def test_written_codes_are_what_the_format_decodes_to_and_stores(options: dict[str, object]) -> None:
    model = quantize(Mixed(), **options)
    name = "grouped.weight"
    grid = WeightGrid.of(model, name)
    largest = grid.uniform.largest
    codes = torch.randint(
        -largest, largest + 1, grid.latent.shape, generator=torch.Generator().manual_seed(1)
    )

    write_(model, name, codes)

    assert torch.equal(model.grouped.weight, codes * grid.scale)
    assert np.array_equal(rebuild(formats.stored(model)[name]), (codes * grid.scale).numpy())


def test_pruned_places_stay_zero_whatever_is_written() -> None:
    model = Mixed()
    model.first.weight.data[normal(8, 3, 3, 3) < 0.5] = 0
    pruned = model.first.weight == 0
    formats.refine(model, "first.weight", Sparse(values=Uniform(bits=4)))

    write_(model, "first.weight", torch.full((8, 3, 3, 3), 7))

    assert torch.equal(model.first.weight == 0, pruned)
    assert model.first.weight[~pruned].unique().numel() == 1


def test_a_weight_without_a_grid_is_refused_with_a_remedy() -> None:
    model = Mixed()
    formats.refine(model, "first.weight", Codebook(bits=3))

    with pytest.raises(FormatError, match=r"first.weight: its format is .*Codebook.* expected Uniform"):
        WeightGrid.of(model, "first.weight")
    with pytest.raises(FormatError, match=r"grouped.weight: this weight has no grid .* Uniform format first"):
        gptq(model, "grouped.weight", batches())


# -- GPTQ --------------------------------------------------------------------------------------------------------------


def by_least_squares(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    largest: int,
    *,
    damping: float = 0.01,
    order: Tensor | None = None,
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Column after column: round it where the best answer of the free columns to all errors so far has put it."""
    rows, size = weight.shape
    diagonal = hessian.diagonal()
    damped = hessian + damping * diagonal[diagonal > 0].mean() * torch.eye(size, dtype=torch.float64)
    order = torch.arange(size) if order is None else order
    weight = weight.clone()
    weight[:, diagonal == 0] = 0
    codes, scale = torch.zeros(rows, size, dtype=torch.float64), scale.clone()
    free, fixed = order.tolist(), []
    while free:
        if fixed:
            errors = weight[:, fixed] - codes[:, fixed] * scale[:, fixed]
            moved = torch.linalg.solve(damped[free][:, free], damped[free][:, fixed] @ errors.T).T
        else:
            moved = torch.zeros(rows, size, dtype=torch.float64)
        wanted = weight[:, free] + moved
        if group and len(fixed) % group == 0:
            mine = free[:group]
            scale[:, mine] = (wanted[:, : len(mine)].abs().amax(1) / largest)[:, None]
        j = free.pop(0)
        codes[:, j] = (wanted[:, 0] / scale[:, j]).round().clamp(-largest, largest)
        fixed.append(j)
    return codes, scale


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_rounds_every_column_where_least_squares_puts_it(block: int, act_order: bool) -> None:
    x = correlated(40).double() * torch.linspace(0.2, 3, 40)
    x[:, 11] = 0  # an input that is never seen
    weight, hessian = normal(9, 40, seed=5).double(), (x.T @ x / len(x))
    scale = (weight.abs().amax(1, keepdim=True) / 3).expand_as(weight)
    order = hessian.diagonal().argsort(descending=True, stable=True) if act_order else None

    codes, _ = round_columns(
        weight[None],
        hessian[None],
        scale[None],
        torch.ones_like(weight, dtype=torch.bool)[None],
        lambda c: c.clamp(-3, 3),
        block=block,
        act_order=act_order,
    )

    expected, _ = by_least_squares(weight, hessian, scale, 3, order=order)
    assert torch.equal(codes[0], expected)
    assert not codes[0, :, 11].any()
    assert not torch.equal(codes[0], (weight / scale).round().clamp(-3, 3))


@pytest.mark.parametrize("group", [4, 6, 50])
def test_gptq_fits_the_scale_of_a_group_to_the_weights_as_updated_by_then(group: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(26, 7))
    weight, x = model[0].weight.detach().double(), correlated(26)
    formats.refine(model, "0.weight", Uniform(bits=4, granularity="group", group=group))

    gptq(model, "0.weight", [x], block=8)

    start = weight.abs().amax(1, keepdim=True).expand_as(weight) / 7
    codes, scale = by_least_squares(weight, x.double().T @ x.double() / len(x), start, 7, group=group)
    grid = WeightGrid.of(model, "0.weight")
    torch.testing.assert_close(grid.scale, scale.float(), rtol=1e-5, atol=0)
    assert torch.equal((grid.latent / grid.scale).round(), codes.float())
    assert np.array_equal(rebuild(formats.stored(model)["0.weight"]), model[0].weight.detach().numpy())


def test_gptq_with_inputs_that_are_not_correlated_rounds_to_nearest() -> None:
    model = quantize(nn.Sequential(nn.Linear(16, 5)), bits=4, granularity="channel")
    before = model[0].weight.detach().clone()
    x = torch.eye(16) * 4

    report = gptq(model, "0.weight", [x])

    assert torch.equal(model[0].weight, before)
    assert report.changed == 0
    assert report.chosen == pytest.approx(report.nearest)


def test_gptq_collects_the_gram_matrix_of_every_group_of_a_convolution() -> None:
    model = Mixed().eval()

    found, mean = gram(model, "grouped", batches(), positions=10**6)

    x = sample(model, ["grouped"], batches(), positions=10**6)["grouped"].double()
    torch.testing.assert_close(found, x.transpose(1, 2) @ x / x.shape[1])
    torch.testing.assert_close(mean, x.mean(1))


def test_gptq_rounds_the_groups_of_a_convolution_each_for_itself() -> None:
    weight, x = normal(4, 3, 12).double(), torch.stack([correlated(12, seed=s) for s in range(4)]).double()
    hessian, scale = x.transpose(1, 2) @ x, torch.full((4, 3, 12), 0.4, dtype=torch.float64)

    def run(at: slice) -> Tensor:
        kept = torch.ones_like(weight[at], dtype=torch.bool)
        return round_columns(
            weight[at], hessian[at], scale[at], kept, lambda c: c.clamp(-7, 7), act_order=True
        )[0]

    assert torch.equal(run(slice(None)), torch.cat([run(slice(g, g + 1)) for g in range(4)]))


def test_gptq_keeps_pruned_weights_zero_and_passes_their_error_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 8))
    model[0].weight.data[normal(8, 30) < 0] = 0
    zero = model[0].weight == 0
    formats.refine(model, "0.weight", Sparse(values=Uniform(bits=3)))

    report = gptq(model, "0.weight", [correlated(30)])

    assert not model[0].weight[zero].any()
    assert report.chosen < 0.8 * report.nearest


@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_keeps_the_outputs_of_real_layers_better_than_rounding_to_nearest(act_order: bool) -> None:
    digits = load_data("digits")
    x = torch.from_numpy(digits.preprocess(digits.train.inputs[:128]))
    model = load_model("lenet5", "lenet5_caffe_mnist")
    quantized = quantize(model, bits=3, granularity="channel")

    reports = [gptq(quantized, name, list(x.split(64)), act_order=act_order) for name in weights(quantized)]

    assert all(report.chosen < 0.6 * report.nearest for report in reports)
    for report in reports:
        layer = report.name.removesuffix(".weight")
        grid = WeightGrid.of(quantized, report.name)
        hessian, _ = gram(quantized, layer, list(x.split(64)))
        weight = model.get_submodule(layer).weight.detach()
        change = (weight - grid.latent).reshape(1, len(weight), -1).double()
        assert output_error(change, hessian) == pytest.approx(report.chosen, rel=1e-5)


def test_gptq_refuses_inputs_that_are_not_finite_and_options_that_cannot_be() -> None:
    model = quantize(nn.Sequential(nn.Linear(3, 2)), bits=4)

    with pytest.raises(TrainingError, match=r"0.weight: the inputs of this layer are not finite"):
        gptq(model, "0.weight", [torch.full((2, 3), torch.nan)])
    with pytest.raises(OptionError, match="damping 0"):
        gptq(model, "0.weight", [normal(2, 3)], damping=0)


# -- AdaRound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("relu", [False, True])
def test_adaround_finds_one_of_the_best_of_all_roundings_of_a_small_layer(seed: int, relu: bool) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 1))
    quantized = quantize(model, bits=3)
    x = correlated(8, seed=seed) + 0.5
    grid = WeightGrid.of(quantized, "0.weight")
    floor = (grid.latent / grid.scale).floor()
    f = F.relu if relu else nn.Identity()

    report = adaround(quantized, model, "0.weight", [x], relu=relu, steps=300, rows=400)

    def error(weight: Tensor) -> float:
        return float((f(F.linear(x, weight, model[0].bias)) - f(model(x))).square().mean().detach())

    choices = (torch.tensor([up]) for up in itertools.product((0.0, 1.0), repeat=8))
    errors = [error(grid.clip(floor + up) * grid.scale) for up in choices]
    reached = error(quantized[0].weight)
    assert reached == pytest.approx(report.chosen, rel=1e-4)
    assert reached <= report.nearest
    better = sum(other < reached * (1 - 1e-6) for other in errors)
    assert better <= 0.05 * len(errors)


def test_adaround_chooses_only_between_the_two_neighbours_and_pruned_weights_stay_zero() -> None:
    model = Mixed(seed=1).eval()
    model.grouped.weight.data[normal(*model.grouped.weight.shape) < 0] = 0
    weight = model.grouped.weight.detach().clone()
    quantized = copy.deepcopy(model)
    formats.refine(quantized, "grouped.weight", Sparse(values=Uniform(bits=3)))
    scale = WeightGrid.of(quantized, "grouped.weight").scale

    report = adaround(quantized, model, "grouped.weight", batches(), steps=200, relu=True)

    chosen = quantized.grouped.weight.detach()
    ratio = weight / scale
    codes = (chosen / scale).round()
    inside = weight != 0
    assert report.chosen < 0.8 * report.nearest
    assert torch.equal(chosen, codes * scale * inside)
    assert ((codes >= ratio.floor() - 1e-4) & (codes <= ratio.ceil() + 1e-4))[inside].all()
    assert not chosen[~inside].any()


def test_adaround_answers_the_errors_of_the_layers_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4))
    x = correlated(6)
    quantized = quantize(model, bits=3, granularity="channel")
    blind = copy.deepcopy(quantized)
    blind[0] = model[0]  # as if the prefix were still float

    adaround(quantized, model, "2.weight", [x], steps=400)
    adaround(blind, model, "2.weight", [x], steps=400)

    blind[0] = quantized[0]
    with torch.no_grad():
        truth = model(x)
        assert (quantized(x) - truth).square().mean() < (blind(x) - truth).square().mean()


def test_adaround_is_the_same_for_the_same_seed_and_leaves_a_layer_on_its_grid_alone() -> None:
    model = Mixed().eval()
    first, second = quantize(model, bits=3), quantize(model, bits=3)

    for twin in (first, second):
        adaround(twin, model, "first.weight", batches(), steps=50, relu=True)
    exact = adaround(first, formats.baked(first), "first.weight", batches(), steps=50)

    assert torch.equal(first.first.weight, second.first.weight)
    assert (exact.nearest, exact.chosen, exact.changed) == (0.0, 0.0, 0)


def test_adaround_keeps_the_outputs_of_real_layers_better_than_rounding_to_nearest() -> None:
    digits = load_data("digits")
    x = torch.from_numpy(digits.preprocess(digits.train.inputs[:128]))
    model = load_model("lenet5", "lenet5_caffe_mnist")
    quantized = quantize(model, bits=3, granularity="channel")

    reports = [
        adaround(quantized, model, name, [x], relu=name == "ip1.weight", steps=150, rows=256)
        for name in ("conv1.weight", "conv2.weight", "ip2.weight")
    ]

    assert all(report.chosen < 0.6 * report.nearest for report in reports)


def test_adaround_refuses_another_network_and_options_that_cannot_be() -> None:
    quantized = quantize(nn.Sequential(nn.Linear(3, 2)), bits=4)

    with pytest.raises(FormatError, match=r"the reference holds \(4, 3\), the model \(2, 3\)"):
        adaround(quantized, nn.Sequential(nn.Linear(3, 4)), "0.weight", [normal(2, 3)])
    with pytest.raises(OptionError, match="steps 0"):
        adaround(quantized, quantized, "0.weight", [normal(2, 3)], steps=0)


# -- bias correction ---------------------------------------------------------------------------------------------------


def test_bias_correction_gives_every_channel_the_float_mean_on_the_calibration_data() -> None:
    model = Mixed().eval()
    quantized = quantize(model, bits=2, granularity="channel")
    layers = ["first", "grouped", "last"]
    aims = moments(model, layers, batches())
    off = moments(quantized, layers, batches())

    report = correct_biases(quantized, model, batches())

    found = moments(quantized, layers, batches())
    assert sorted(report.shifts) == ["first.bias", "grouped.bias", "last.bias"]
    assert not report.skipped
    for layer in layers:
        assert float((off[layer].mean - aims[layer].mean).abs().max()) > 1e-3
        torch.testing.assert_close(found[layer].mean, aims[layer].mean, atol=1e-6, rtol=0)


def test_bias_correction_tells_why_it_leaves_a_layer_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4))
    model.idle = nn.Linear(4, 4)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    quantized = quantize(model, bits=2)
    quantized.forward = lambda x: quantized[2](quantized[1](quantized[0](x)))  # type: ignore[method-assign]
    formats.refine(quantized, "1.bias", formats.Dense(dtype="float16"))

    report = correct_biases(quantized, model, [normal(8, 4)])

    assert list(report.shifts) == ["2.bias"]
    assert "has no bias" in report.skipped["0"]
    assert "carries a format" in report.skipped["1"]
    assert "never calls" in report.skipped["idle"]


# -- all of them -------------------------------------------------------------------------------------------------------


FLOAT = Mixed()
CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "equalize": lambda model: equalize(model, batches()[0]),
    "correct_biases": lambda model: correct_biases(model, FLOAT, batches()),
    "adaround": lambda model: adaround(model, FLOAT, "grouped.weight", batches(), steps=5),
    "gptq": lambda model: gptq(model, "grouped.weight", batches()),
    "moments": lambda model: moments(model, ["grouped"], batches()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_modes_random_state_and_gradient_flags_stay_as_they_were(name: str) -> None:
    model = Mixed()
    if name != "equalize":
        model = quantize(model, bits=3)
    model.train()
    model.first.eval()
    model.last.bias.requires_grad_(False)
    modes = {path: module.training for path, module in model.named_modules()}
    flags = {path: value.requires_grad for path, value in model.named_parameters()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    CHANGES[name](model)

    assert torch.equal(torch.rand(3), expected)
    assert {path: module.training for path, module in model.named_modules()} == modes
    assert {path: value.requires_grad for path, value in model.named_parameters()} == flags
    assert all(value.grad is None for value in model.parameters())
    assert torch.is_grad_enabled()


def test_all_of_them_work_in_a_network_whose_activations_are_rounded() -> None:
    digits = load_data("digits")
    model = load_model("lenet5", "lenet5_caffe_mnist")
    reference = copy.deepcopy(model)
    Calibrate(samples=32).apply(model, Context(data=digits, example=example(model)))
    model = quantize(model, bits=4, granularity="channel")
    x = [torch.from_numpy(digits.preprocess(digits.train.inputs[:64]))]
    states = {name: q.state for name, q in quantizers.quantizers(model).items()}

    rounded = adaround(model, reference, "conv2.weight", x, steps=100, rows=256)
    fed_back = gptq(model, "ip2.weight", x)
    corrected = correct_biases(model, reference, x)

    assert rounded.chosen < rounded.nearest
    assert fed_back.chosen < fed_back.nearest
    assert len(corrected.shifts) == 4
    assert states == {name: q.state for name, q in quantizers.quantizers(model).items()}
    assert not model(x[0]).isnan().any()


# -- what they are for -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar() -> Cifar:
    return Cifar()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_four_bits_lose_little_when_layers_keep_their_outputs(cifar: Cifar, method: str) -> None:
    quantized = quantize(cifar.model, bits=4)
    exact, nearest = cifar.percent(cifar.model), cifar.percent(quantized)
    followed = layer_graph(cifar.model, cifar.x[:2]).before_relu

    for name in weights(quantized):
        if method == "gptq":
            gptq(quantized, name, cifar.batches)
        else:
            adaround(quantized, cifar.model, name, cifar.batches, relu=name in followed, steps=500)

    recovered = (cifar.percent(quantized) - nearest) / (exact - nearest)
    figures = f"float {exact:.2f}, nearest {nearest:.2f}, recovered {recovered:.0%} of the gap"
    assert nearest < exact - 2, figures
    assert recovered > 0.6, figures


@pytest.mark.slow
def test_bias_correction_recovers_part_of_what_four_bits_lose(cifar: Cifar) -> None:
    quantized = quantize(cifar.model, bits=4)
    nearest = cifar.percent(quantized)

    correct_biases(quantized, cifar.model, cifar.batches)

    found = cifar.percent(quantized)
    assert found > nearest + 1, f"nearest {nearest:.2f}, with corrected biases {found:.2f}"
