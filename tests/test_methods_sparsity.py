"""Penalties that remove whole groups of weights: operators against scipy, fixed points against optimality conditions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.data import load_data
from gossamer.errors import OptionError
from gossamer.methods.less_is_more import LessIsMore, low_rank_threshold, zero_neurons
from gossamer.methods.network_slimming import ShrinkScales, SlimmingLoss, scales, share_below, start_scales_
from gossamer.methods.neuron_merging import choose_merges, merge_
from gossamer.methods.proximal import group_threshold, singular_threshold, soft_threshold, step_sizes
from gossamer.methods.structured_sparsity import (
    GROUPS,
    KeepZeros,
    StructuredSparsity,
    lowered,
    zero_groups,
    zero_small_,
)
from gossamer.models import load_model
from gossamer.pruning import CHANNEL_CRITERIA, Evidence, Groups, cut, find_groups, score
from gossamer.pruning.compensation import compensate_, scale_constant
from gossamer.pruning.dead_channels import dead_channels
from gossamer.pruning.group import Group, Member
from gossamer.training import AfterStep, fit


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def minimized(penalty: Callable[[np.ndarray], float], at: Tensor) -> Tensor:
    """argmin penalty(w) + |w - at|^2 / 2, by a method without gradients."""
    start = at.numpy().ravel()
    found = minimize(
        lambda w: penalty(w.reshape(at.shape)) + 0.5 * float(((w - start) ** 2).sum()),
        0.5 * start,
        method="Powell",
        options={"xtol": 1e-9, "ftol": 1e-13, "maxiter": 20000},
    )
    return torch.from_numpy(found.x).reshape(at.shape)


# -- operators -------------------------------------------------------------------------------------------------------


def test_soft_threshold_is_the_minimum_of_the_l1_problem() -> None:
    v = normal(6)

    assert torch.allclose(soft_threshold(v, 0.6), minimized(lambda w: 0.6 * np.abs(w).sum(), v), atol=1e-4)


@pytest.mark.parametrize("amount", [0.5, 1.4, 5.0])
def test_group_threshold_is_the_minimum_of_the_group_lasso_problem(amount: float) -> None:
    v = normal(3, 4)

    shrunk = group_threshold(v, amount, 1)

    expected = minimized(lambda w: amount * np.linalg.norm(w, axis=1).sum(), v)
    assert torch.allclose(shrunk, expected, atol=2e-3)
    assert torch.equal((shrunk == 0).all(dim=1), v.norm(dim=1) <= amount)


def test_a_zero_group_stays_zero_without_nan() -> None:
    assert torch.equal(group_threshold(torch.zeros(2, 3), 0.1, 1), torch.zeros(2, 3))


def test_singular_threshold_is_the_minimum_of_the_nuclear_norm_problem() -> None:
    v = normal(3, 2)

    found = singular_threshold(v, 0.7)

    def objective(w: Tensor) -> float:
        return float(0.7 * torch.linalg.svdvals(w).sum() + 0.5 * (w - v).square().sum())

    best = objective(found)
    assert all(objective(found + 0.05 * normal(3, 2, seed=seed)) > best for seed in range(200))
    sigma = torch.linalg.svdvals(v)
    torch.testing.assert_close(torch.linalg.svdvals(found), (sigma - 0.7).clamp_min(0))


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}, {"momentum": 0.5, "dampening": 0.5}],
)
def test_proximal_steps_settle_at_the_minimum_whatever_the_momentum(options: dict[str, float]) -> None:
    """min |A w - b|^2 / 2 + lambda |w|_2: at the minimum A^T (A w - b) = -lambda w / |w|."""
    a, b, penalty = normal(8, 4), normal(8, seed=1), 1.5
    w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=0.02, **options)

    for _ in range(4000):
        optimizer.zero_grad()
        (0.5 * (a @ w - b).square().sum()).backward()
        optimizer.step()
        w.data = group_threshold(w.data, penalty * step_sizes(optimizer)[w], 0)

    slope = a.T @ (a @ w - b)
    torch.testing.assert_close(slope, -penalty * w / w.norm(), atol=1e-6, rtol=1e-5)


def test_optimizers_with_a_step_of_their_own_for_every_weight_are_refused() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])

    with pytest.raises(OptionError, match=r"Adam: a proximal step needs one step size .* optimizer='sgd'"):
        step_sizes(optimizer)


# -- in training -----------------------------------------------------------------------------------------------------


def test_after_step_is_called_after_each_step_with_the_scheduled_rate() -> None:
    data = load_data("digits")
    rates: list[float] = []

    def note(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        rates.append(next(iter(step_sizes(optimizer).values())))

    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.batch(1).shape), 10))
    fit(
        model, data, epochs=2, lr=0.1, momentum=0.5, schedule="cosine", max_batches=3, progress=False,
        callbacks=[AfterStep(note)],
    )  # fmt: skip

    assert len(rates) == 6
    assert rates[0] == pytest.approx(0.2)  # lr / (1 - momentum)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05


# -- network slimming ------------------------------------------------------------------------------------------------


def slim() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_the_slimming_loss_adds_lambda_times_the_sign_to_the_gradient_of_every_scale() -> None:
    model, x, y = slim(), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    model[1].weight.data = torch.tensor([0.5, -0.5, 0.0, 2.0])

    slopes = []
    for loss in (lambda o, y, x, m: F.cross_entropy(o, y), SlimmingLoss(0.3)):
        model.zero_grad()
        loss(model(x), y, x, model).backward()
        slopes.append({name: p.grad.clone() for name, p in model.named_parameters()})

    change = {name: slopes[1][name] - slopes[0][name] for name in slopes[0]}
    torch.testing.assert_close(change["1.weight"], 0.3 * torch.tensor([1.0, -1.0, 0.0, 1.0]))
    assert all(bool((value == 0).all()) for name, value in change.items() if name != "1.weight")


def test_a_proximal_step_shrinks_scales_by_lambda_times_the_step_and_stops_at_zero() -> None:
    model = slim()
    model[1].weight.data = torch.tensor([0.5, -0.5, 0.01, -0.03])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

    ShrinkScales(0.1)(model, optimizer)

    torch.testing.assert_close(model[1].weight.data, torch.tensor([0.48, -0.48, 0.0, -0.01]))


def test_scales_start_at_a_half_and_are_counted() -> None:
    model = slim()

    start_scales_(model)
    model[1].weight.data[0] = 0.001

    assert list(scales(model)) == ["1.weight"]
    assert model[1].weight.tolist() == pytest.approx([0.001, 0.5, 0.5, 0.5])
    assert share_below(model) == 0.25
    with pytest.raises(OptionError, match="Linear has no batch norm with a scale"):
        start_scales_(nn.Linear(2, 2))
    with pytest.raises(OptionError, match="penalty is 0"):
        SlimmingLoss(0)


@pytest.mark.slow
def test_the_penalty_gathers_scales_near_zero_and_only_the_proximal_step_makes_them_zero() -> None:
    data, found = load_data("digits"), {}
    shrink = AfterStep(ShrinkScales(0.03))
    for name, loss, callbacks in (
        ("none", None, []),
        ("gradient", SlimmingLoss(0.03), []),
        ("prox", None, [shrink]),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
        start_scales_(model)
        fit(
            model, data, epochs=2, lr=0.05, schedule="cosine", batch_size=64, max_batches=60, progress=False,
            loss=loss, callbacks=callbacks,
        )  # fmt: skip
        zeros = sum(int((gamma == 0).sum()) for gamma in scales(model).values())
        found[name] = (share_below(model, 0.01), zeros)

    assert found["gradient"][0] >= max(5 * found["none"][0], 0.1)
    assert found["prox"][0] >= max(5 * found["none"][0], 0.1)
    assert found["none"][1] == found["gradient"][1] == 0
    assert found["prox"][1] >= 10


# -- structured sparsity ---------------------------------------------------------------------------------------------

SLICES = {
    "kernels": [np.s_[o, i] for o in range(3) for i in range(2)],
    "shapes": [np.s_[:, i, y, x] for i in range(2) for y in range(2) for x in range(2)],
    "channels": [np.s_[:, i] for i in range(2)],
    "filters": [np.s_[o] for o in range(3)],
    "depth": [np.s_[...]],
}


@pytest.mark.parametrize("by_size", [False, True])
@pytest.mark.parametrize("structure", GROUPS)
def test_the_penalty_and_its_prox_equal_a_loop_over_the_groups(structure: str, by_size: bool) -> None:
    layer = nn.Conv2d(2, 3, 2).double()
    layer.weight.data = normal(3, 2, 2, 2)
    model = nn.Sequential(layer)
    ssl = StructuredSparsity(layers=["0"], by_size=by_size, **{structure: 0.3})
    w = layer.weight.detach().numpy()

    value, after = float(ssl.penalty(model).detach()), ssl.shrunk(layer.weight, 2.0)

    total, expected = 0.0, w.copy()
    for at in SLICES[structure]:
        unit = 0.3 * math.sqrt(w[at].size) if by_size else 0.3
        norm = float(np.linalg.norm(w[at]))
        total += unit * norm
        expected[at] = max(1 - 2.0 * unit / norm, 0) * w[at]
    assert value == pytest.approx(total)
    np.testing.assert_allclose(after.numpy(), expected, atol=1e-12)
    zero = zero_groups(after)[structure].tolist()
    assert zero == [bool((expected[at] == 0).all()) for at in SLICES[structure]]


def test_the_prox_of_nested_groups_is_the_minimum_of_their_sum() -> None:
    ssl = StructuredSparsity(layers=[], shapes=0.2, channels=0.4, depth=0.3)
    v = normal(2, 2, 1, 2)

    found = ssl.shrunk(v, 1.0)

    def penalty(w: np.ndarray) -> float:
        shapes = np.linalg.norm(w, axis=0).sum()
        channels = np.sqrt((w**2).sum(axis=(0, 2, 3))).sum()
        return float(0.2 * shapes + 0.4 * channels + 0.3 * np.linalg.norm(w))

    assert torch.allclose(found, minimized(penalty, v), atol=2e-3)


def test_the_gradient_of_a_group_is_its_direction_and_zero_for_a_zero_group() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].weight.data = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])

    StructuredSparsity(layers=["0"], filters=0.5).penalty(model).backward()

    torch.testing.assert_close(model[0].weight.grad, torch.tensor([[0.3, 0.0, 0.4], [0.0, 0.0, 0.0]]))


def test_small_weights_become_zero_and_zeros_can_be_kept() -> None:
    model = nn.Sequential(nn.Linear(3, 1))
    model[0].weight.data = torch.tensor([[5e-5, -2.0, 1.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    zero_small_(model, ["0"])
    keep = KeepZeros(model, ["0"])
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
        keep(model, optimizer)

    assert model[0].weight[0, 0] == 0
    assert (model[0].weight[0, 1:] != torch.tensor([-2.0, 1.0])).all()


def test_the_lowered_matrix_without_zero_rows_and_columns_gives_the_same_convolution() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1)
    with torch.no_grad():
        conv.weight[[1, 4]] = 0
        conv.weight[:, 0, :, 1] = 0
        conv.weight[:, 2] = 0
    x = torch.randn(2, 3, 6, 6)

    matrix, rows, columns = lowered(conv.weight)

    assert matrix.shape == (3, 27 - 3 - 9)
    y = conv.bias.detach()[None, :, None].expand(2, 5, 36).clone()
    y[:, rows] += matrix @ F.unfold(x, 3, padding=1)[:, columns]
    torch.testing.assert_close(y.reshape(2, 5, 6, 6), conv(x).detach(), atol=1e-5, rtol=1e-5)


def test_options_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(OptionError, match="expected numbers of at least 0, one of them positive"):
        StructuredSparsity(layers=["0"])
    with pytest.raises(OptionError, match=r"0: its weight has shape \(4,\)"):
        StructuredSparsity(layers=["0"], filters=1).penalty(nn.Sequential(nn.BatchNorm1d(4)))
    with pytest.raises(OptionError, match="of is 'filter', expected 'neuron' or 'layer'"):
        LessIsMore(["0"], group=1, of="filter")
    with pytest.raises(OptionError, match="one of them positive"):
        LessIsMore(["0"])


# -- dead channels ---------------------------------------------------------------------------------------------------


def chain(*widths: int) -> tuple[nn.Module, list[Group]]:
    """Linear layers with ReLU between, biases zero, and the groups between them."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.ReLU()]
        nn.init.zeros_(layers[-2].bias)
    groups = []
    for at, size in enumerate(widths[1:-1]):
        same = torch.arange(size)
        members = (
            Member(f"{2 * at}.weight", 0, same, "out"),
            Member(f"{2 * at}.bias", 0, same, "with"),
            Member(f"{2 * at + 2}.weight", 1, same, "in"),
        )
        groups.append(Group(f"{2 * at}", size, members, torch.ones(size, dtype=torch.bool)))
    return nn.Sequential(*layers[:-1]), groups


def test_zero_filters_and_unread_channels_die_and_take_others_with_them() -> None:
    model, groups = chain(3, 4, 4, 2)
    with torch.no_grad():
        model[0].weight[1] = 0  # unit 1 of the first group is always zero
        model[4].weight[:, 2] = 0  # unit 2 of the second is not read
        model[2].weight[:, 3] = 0
        model[2].weight[2, 3] = 1.0  # unit 3 of the first is read by that unit alone
        model[2].weight[0] = torch.tensor(
            [0.0, 5.0, 0.0, 0.0]
        )  # unit 0 of the second hears only the zero unit 1
    before = copy.deepcopy(model.state_dict())

    choice = dead_channels(model, groups)

    assert choice["0"].tolist() == [True, False, True, False]
    assert choice["2"].tolist() == [False, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    x = torch.randn(8, 3)
    one, two = choice["0"], choice["2"]
    h = F.relu(x @ model[0].weight[one].T)
    y = F.relu(h @ model[2].weight[two][:, one].T) @ model[4].weight[:, two].T
    torch.testing.assert_close(y, model(x), atol=1e-6, rtol=1e-5)


def test_a_zero_filter_with_a_bias_is_a_constant_and_not_dead() -> None:
    model, groups = chain(3, 4, 2)
    with torch.no_grad():
        model[0].weight[[1, 2]] = 0
        model[0].bias[2] = 0.5

    assert dead_channels(model, groups)["0"].tolist() == [True, False, True, True]
    assert dead_channels(model, groups, constants=True)["0"].tolist() == [True, False, False, True]


def test_one_unit_stays_where_all_are_dead() -> None:
    model, groups = chain(3, 4, 2)
    nn.init.zeros_(model[0].weight)

    assert dead_channels(model, groups)["0"].tolist() == [True, False, False, False]


# -- less is more ----------------------------------------------------------------------------------------------------


def test_a_backward_step_shortens_neurons_with_their_biases() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.tensor([[2.0, 0.0, 1.0], [0.1, 0.0, 0.0]])
    layer.bias.data = torch.tensor([2.0, 0.05])
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    LessIsMore(["0"], group=3.0)(model, optimizer)

    torch.testing.assert_close(layer.weight.data, torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(layer.bias.data, torch.tensor([1.0, 0.0]))
    assert zero_neurons(model, ["0"])["0"].tolist() == [False, True]


def test_a_step_every_third_time_is_three_times_as_long() -> None:
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    model[0].weight.data = torch.tensor([[3.0, 0.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    change = LessIsMore(["0"], group=1.0, every=3)

    lengths = []
    for _ in range(6):
        change(model, optimizer)
        lengths.append(float(model[0].weight.detach().norm()))

    assert lengths == pytest.approx([5.0, 5.0, 4.7, 4.7, 4.7, 4.4])


@pytest.mark.parametrize(
    ("shape", "of"), [((2, 3, 2, 2), "neuron"), ((2, 3, 2, 2), "layer"), ((3, 4), "layer")]
)
def test_low_rank_thresholds_every_unfolding_and_averages(shape: tuple[int, ...], of: str) -> None:
    weight = normal(*shape)

    found = low_rank_threshold(weight, 0.9, of=of)

    tensors = weight.numpy() if of == "neuron" else weight.numpy()[None]
    expected = np.zeros_like(tensors)
    for index, tensor in enumerate(tensors):
        modes = range(tensor.ndim) if tensor.ndim > 2 else [0]
        for mode in modes:
            front = np.moveaxis(tensor, mode, 0)
            u, sigma, vt = np.linalg.svd(front.reshape(front.shape[0], -1), full_matrices=False)
            folded = (u * np.maximum(sigma - 0.9 / len(modes), 0)) @ vt
            expected[index] += np.moveaxis(folded.reshape(front.shape), 0, mode) / len(modes)
    np.testing.assert_allclose(found.numpy(), expected.reshape(shape), atol=1e-10)


def test_low_rank_of_a_vector_neuron_is_group_sparsity() -> None:
    weight = normal(5, 7)

    torch.testing.assert_close(low_rank_threshold(weight, 1.1), group_threshold(weight, 1.1, 1))


def test_a_large_low_rank_penalty_removes_the_neuron() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False))
    LessIsMore(["0"], low_rank=100.0)(model, torch.optim.SGD(model.parameters(), lr=1.0))

    assert zero_neurons(model, ["0"])["0"].all()


@pytest.mark.slow
def test_neurons_vanish_exactly_with_the_penalty_and_never_by_its_gradient() -> None:
    """LeNet-5 on 4000 digits: the zeros grow with lambda, and removing them changes no logit."""
    data = load_data("mnist")
    found = {}
    for penalty in (0.02, 0.05, 0.12):
        model = load_model("lenet5", "lenet5_caffe_mnist")
        fit(
            model, data, epochs=1, lr=0.02, momentum=0.9, batch_size=64, max_batches=60, progress=False,
            callbacks=[AfterStep(LessIsMore(["ip1"], group=penalty))],
        )  # fmt: skip
        found[penalty] = int(zero_neurons(model, ["ip1"])["ip1"].sum())
    by_gradient = load_model("lenet5", "lenet5_caffe_mnist")
    lasso = StructuredSparsity(layers=["ip1"], filters=0.12)
    fit(
        by_gradient, data, epochs=1, lr=0.02, momentum=0.9, batch_size=64, max_batches=60, progress=False,
        loss=lambda outputs, labels, inputs, m: F.cross_entropy(outputs, labels) + lasso.penalty(m),
    )  # fmt: skip

    alive = ~zero_neurons(model, ["ip1"])["ip1"]
    x = torch.from_numpy(data.batch(64))
    seen = model(x)
    h = torch.flatten(F.max_pool2d(model.conv2(F.max_pool2d(model.conv1(x), 2)), 2), 1)
    small = F.relu(h @ model.ip1.weight[alive].T + model.ip1.bias[alive]) @ model.ip2.weight[:, alive].T
    assert found[0.02] <= found[0.05] <= found[0.12]
    assert found[0.12] > found[0.02]
    assert int(zero_neurons(by_gradient, ["ip1"])["ip1"].sum()) == 0
    torch.testing.assert_close(small + model.ip2.bias, seen, atol=1e-5, rtol=1e-5)


# -- neuron merging --------------------------------------------------------------------------------------------------


def test_equal_neurons_merge_without_any_change() -> None:
    model, groups = chain(5, 6, 3)
    with torch.no_grad():
        model[0].bias.normal_()
        for copied, original in ((1, 4), (2, 4), (5, 0)):
            model[0].weight[copied] = model[0].weight[original]
            model[0].bias[copied] = model[0].bias[original]
    x = torch.randn(7, 5)
    before = model(x)

    merging = choose_merges(model, groups, keep=0.5)
    merge_(model, groups, merging)

    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    kept = merging.choice["0"]
    assert int(kept.sum()) == 3
    assert kept[[0, 5]].sum() == kept[[1, 2, 4]].sum() == 1
    assert (model[2].weight[:, ~kept] == 0).all()


def test_merges_equal_a_plain_search_over_all_pairs() -> None:
    model, groups = chain(4, 7, 3)
    model[0].bias.data.normal_()

    merges = choose_merges(model, groups, keep=3 / 7).merges["0"]

    rows = torch.cat([model[0].weight, model[0].bias[:, None]], dim=1).detach().double()
    outgoing = model[2].weight.detach().double().clone()
    alive = list(range(7))
    for merge in merges:
        pairs = {
            (gone, into): float(outgoing[:, gone].square().mean() * (rows[gone] - rows[into]).square().sum())
            for gone in alive
            for into in alive
            if gone != into
        }
        gone, into = min(pairs, key=pairs.__getitem__)
        assert (merge.gone, merge.into) == (gone, into)
        assert merge.saliency == pytest.approx(pairs[gone, into], rel=1e-6)
        outgoing[:, into] += outgoing[:, gone]
        alive.remove(gone)
    assert len(merges) == 4


def test_filters_behind_a_norm_and_a_flatten_merge_channel_by_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 3)
    ).eval()
    with torch.no_grad():
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
        model[1].bias.normal_()
        scale = model[1].running_var.add(model[1].eps).sqrt()
        model[0].weight[2] = 3 * model[0].weight[0]  # the same signal under another norm
        model[1].weight[2] = model[1].weight[0] * scale[2] / scale[0] / 3
        model[1].running_mean[2] = 3 * model[1].running_mean[0]
        model[1].bias[2] = model[1].bias[0]
    same = torch.arange(4)
    leaves = ("weight", "bias", "running_mean", "running_var")
    members = (
        Member("0.weight", 0, same, "out"),
        *(Member(f"1.{leaf}", 0, same, "with") for leaf in leaves),
        Member("4.weight", 1, same.repeat_interleave(9), "in"),
    )
    groups = [Group("0", 4, members, torch.ones(4, dtype=torch.bool))]
    x = torch.randn(3, 2, 5, 5)
    before = model(x)

    merging = choose_merges(model, groups, keep=0.75, norms={"0": "1"})
    merge_(model, groups, merging)

    assert {merging.merges["0"][0].gone, merging.merges["0"][0].into} == {0, 2}
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(OptionError, match=r"0: neurons merge where .*1\.weight.* does not fit"):
        choose_merges(model, groups, keep=0.75)


def test_units_that_must_stay_stay() -> None:
    model, groups = chain(5, 6, 3)
    fixed = torch.tensor([False, False, False, True, True, True])
    group = Group("0", 6, groups[0].members, fixed)

    merging = choose_merges(model, [group], keep=0.1)

    assert merging.choice["0"].tolist() == [True, True, True, False, False, False]


def test_merging_disturbs_the_outputs_less_than_removal_of_the_same_number() -> None:
    """60 neurons, nearly equal in threes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 5))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(20, 20).repeat_interleave(3, 0) + 0.02 * torch.randn(60, 20))
    _, groups = chain(20, 60, 5)
    x = torch.randn(200, 20)
    before = model(x).detach()

    merging = choose_merges(model, groups, keep=1 / 3)
    removed, merged = copy.deepcopy(model), copy.deepcopy(model)
    removed[2].weight.data[:, ~merging.choice["0"]] = 0
    merge_(merged, groups, merging)

    errors = [float((m(x).detach() - before).square().mean()) for m in (removed, merged)]
    assert errors[1] < 0.05 * errors[0]


# -- together with found groups and the cut --------------------------------------------------------------------------


class Residual(nn.Module):
    """A stem, one block with a shortcut, mean, linear: two groups, one of them with two makers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.stem(x)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        logits: Tensor = self.linear(F.relu(x + y).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def found() -> tuple[nn.Module, Groups, Tensor]:
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(4, 2, 7, 7)
    with torch.no_grad():
        for norm in (model.norm0, model.norm1, model.norm2):
            for tensor in (norm.weight, norm.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.bias, norm.running_mean):
                tensor.normal_(std=0.3)
    return model.eval(), find_groups(model, x[:2]), x


def after_cut(model: nn.Module, choice: dict[str, Tensor], groups: Groups, x: Tensor) -> Tensor:
    smaller, _ = cut(model, choice, groups)
    return smaller.eval()(x).detach()


def test_every_criterion_scores_every_found_group(found: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = found
    evidence = Evidence(model, groups, [(x, torch.tensor([0, 1, 2, 0]))])

    for group in groups:
        for criterion in CHANNEL_CRITERIA:
            scores = score(group, evidence, criterion)
            assert scores.shape == (group.size,)
            assert bool(scores.isfinite().all())
    assert {group.size for group in groups} == {6, 8}


def test_norms_without_scale_are_cut_without_a_change_once_their_constant_is_moved(
    found: tuple[nn.Module, Groups, Tensor],
) -> None:
    model, groups, x = copy.deepcopy(found[0]), found[1], found[2]
    group = next(group for group in groups if group.size == 8)
    evidence = Evidence(model, groups, [(x, None)])
    with torch.no_grad():
        model.norm1.weight[[0, 3, 5]] = 0
    before = model(x).detach()
    choice = {group.name: score(group, evidence, "scale") > 0}

    compensate_(model, groups, choice, scale_constant(model, group), norms=evidence.norms)

    torch.testing.assert_close(after_cut(model, choice, groups, x), before, atol=1e-5, rtol=1e-4)
    assert int(choice[group.name].sum()) == 5


def test_dead_channels_are_cut_without_a_change(found: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = copy.deepcopy(found[0]), found[1], found[2]
    with torch.no_grad():
        model.conv2.weight[:, [1, 2]] = 0
        for weight in (model.conv1.weight, model.norm1.bias, model.norm1.running_mean):
            weight[7] = 0
    before = model(x).detach()

    choice = dead_channels(model, groups)

    assert sorted(int((~kept).sum()) for kept in choice.values()) == [0, 3]
    torch.testing.assert_close(after_cut(model, choice, groups, x), before, atol=1e-5, rtol=1e-4)


def test_merged_filters_are_cut_without_a_further_change(found: tuple[nn.Module, Groups, Tensor]) -> None:
    model, groups, x = copy.deepcopy(found[0]), found[1], found[2]
    group = next(group for group in groups if group.size == 8)
    norms = Evidence(model, groups, example=x).norms

    merging = choose_merges(model, groups, keep={group.name: 0.5}, norms=norms)
    merge_(model, groups, merging)

    merged = model(x).detach()
    torch.testing.assert_close(after_cut(model, merging.choice, groups, x), merged, atol=1e-5, rtol=1e-4)
    assert int(merging.choice[group.name].sum()) == 4
