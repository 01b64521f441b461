"""Methods that choose channels by what layers give: collector, solvers and choices, each against brute force or numpy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channel_samples import FLAT, INNER, SECOND, STREAM, Branches, pictures
from gossamer.errors import OptionError, StepError
from gossamer.methods.channel_solvers import (
    aims,
    greedy,
    lasso,
    lasso_choice,
    least_squares,
    products,
    scales,
)
from gossamer.methods.lasso_channel_pruning import choose_lasso, refit_
from gossamer.methods.layer_ends import look
from gossamer.methods.layer_inputs import watch
from gossamer.methods.reconstruction import Equations, equations, gram
from gossamer.methods.thinet import choose_thinet, rescale_
from gossamer.pruning.group import Choice, Group, Member
from rounding_samples import Mixed, batches, normal

# -- the collector ---------------------------------------------------------------------------------------------------


def test_equations_are_the_products_of_unfolded_inputs_and_of_the_other_network_s_outputs() -> None:
    model, reference = Mixed(seed=0).eval(), Mixed(seed=1).eval()

    found = equations(model, reference, "grouped", batches(), positions=10**6)

    x: list[Tensor] = []
    y: list[Tensor] = []
    watch(
        model, ["grouped"], batches(), lambda _, a, b: x.append(F.unfold(a, (3, 2), padding=(1, 0), stride=2))
    )
    watch(reference, ["grouped"], batches(), lambda _, a, b: y.append(b.flatten(2)))
    rows = torch.cat(x).double().reshape(12, 4, 12, -1).permute(1, 0, 3, 2).flatten(1, 2)
    aims = torch.cat(y).double().reshape(12, 4, 3, -1).permute(1, 0, 3, 2).flatten(1, 2)
    assert found.count == rows.shape[1]
    torch.testing.assert_close(found.xx, rows.transpose(1, 2) @ rows)
    torch.testing.assert_close(found.xy, rows.transpose(1, 2) @ aims)
    torch.testing.assert_close(found.yy, aims.square().sum(1))
    torch.testing.assert_close(found.x, rows.sum(1))
    torch.testing.assert_close(found.y, aims.sum(1))


def test_sampled_places_are_the_same_in_both_networks() -> None:
    model = Mixed().eval()
    layer = model.grouped

    found = equations(model, model, "grouped", batches(), positions=5)

    weight = layer.weight.detach().double().reshape(4, 3, -1)
    assert found.count == 5 * 12
    assert found.error(weight, layer.bias.detach().double().reshape(4, 3)) < 1e-9 * float(found.yy.sum())


def test_the_error_of_equations_is_the_mean_squared_distance_from_the_targets() -> None:
    model, reference = Mixed(seed=0).eval(), Mixed(seed=1).eval()
    found = equations(model, reference, "last", batches())
    weight, bias = normal(1, 5, 12, seed=3).double(), normal(1, 5, seed=4).double()

    x: list[Tensor] = []
    y: list[Tensor] = []
    watch(model, ["last"], batches(), lambda _, a, b: x.append(a.double()))
    watch(reference, ["last"], batches(), lambda _, a, b: y.append(b.double()))
    left = torch.cat(y) - torch.cat(x) @ weight[0].t()

    torch.testing.assert_close(found.error(weight, bias), float((left - bias).square().sum(1).mean()))
    torch.testing.assert_close(found.error(weight), float((left - left.mean(0)).square().sum(1).mean()))


class Residual(nn.Module):
    """A branch with a norm, added to its input in place."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1)
        self.outer = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        if norm:
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.norm(self.outer(F.relu(self.inner(x))))
        y += x
        return F.relu(y)


def test_what_follows_a_layer_is_found_by_following_its_output() -> None:
    model = Residual().eval()
    x = normal(2, 3, 5, 5)

    (stem,), (outer,) = look(model, "stem", x), look(model, "outer", x)

    assert stem.norm is None
    assert outer.norm == "norm"
    assert outer.shortcut is not None
    torch.testing.assert_close(outer.shortcut, F.relu(model.stem(x)).detach())
    branch = outer.slope.reshape(1, -1, 1, 1) * outer.y  # type: ignore[union-attr]
    torch.testing.assert_close(branch - branch.mean((0, 2, 3), keepdim=True), _centred(model.norm(outer.y)))


def _centred(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)).detach()


def test_a_branch_is_asked_for_what_its_shortcut_lost() -> None:
    reference, model = Residual().eval(), Residual().eval()
    model.stem.weight.data[1] *= 0.5
    x = normal(2, 3, 5, 5)

    found = equations(model, reference, "outer", [x], positions=10**6)
    plain = equations(model, reference, "outer", [x], positions=10**6, residual=False)

    (now,), (aim,) = look(model, "outer", x), look(reference, "outer", x)
    lost = (aim.shortcut - now.shortcut) / now.slope.reshape(1, -1, 1, 1)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(found.y[0], (aim.y + lost).sum((0, 2, 3)).double(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.y[0], aim.y.sum((0, 2, 3)).double(), atol=1e-4, rtol=1e-4)
    full = model.norm(aim.y + lost) + now.shortcut
    torch.testing.assert_close(full, reference.norm(aim.y) + aim.shortcut, atol=1e-4, rtol=1e-4)


# -- solvers ---------------------------------------------------------------------------------------------------------


def contributions(x: Tensor, weight: Tensor, units: Tensor, size: int) -> Tensor:
    """z [M g O/g, size]: what every unit gives to every output at every place, one by one."""
    found = torch.stack(
        [
            (x[:, :, units == unit] @ weight[:, :, units == unit].transpose(1, 2)).flatten()
            for unit in range(size)
        ]
    )
    return found.t()


def layer(seed: int = 0, groups: int = 2, places: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs x [g, M, 14], weights [g, 3, 14], and the unit of each column: seven units, two columns of none."""
    x = torch.stack([correlated(places, columns=14, seed=seed + g) for g in range(groups)]).double()
    units = torch.tensor([0, 0, 1, 1, 2, 2, -1, -1, 3, 3, 4, 5, 6, 6])
    return x, normal(groups, 3, 14, seed=seed + 9).double(), units


def correlated(count: int, columns: int, seed: int) -> Tensor:
    return normal(count, columns, seed=seed) @ normal(columns, columns, seed=seed + 50) + 0.3


def test_products_and_aims_are_those_of_every_unit_s_contributions() -> None:
    x, weight, units = layer()
    y = normal(2, 40, 3, seed=7).double()

    gram = products(x.transpose(1, 2) @ x, weight, units, 7)
    aim = aims(x.transpose(1, 2) @ x, x.transpose(1, 2) @ y, weight, units, 7)

    z = contributions(x, weight, units, 7)
    rest = y - x[:, :, units < 0] @ weight[:, :, units < 0].transpose(1, 2)
    torch.testing.assert_close(gram, z.t() @ z)
    torch.testing.assert_close(aim, z.t() @ rest.flatten())


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_greedy_by_products_removes_what_greedy_on_samples_removes(count: int) -> None:
    x, weight, units = layer(seed=3)
    z = contributions(x, weight, units, 7)
    removable = torch.tensor([True, True, True, False, True, True, True])

    kept = greedy(z.t() @ z, count, removable)

    gone: list[int] = []
    for _ in range(count):
        left = [i for i in range(7) if i not in gone and i != 3]
        gone.append(min(left, key=lambda i: float(z[:, [*gone, i]].sum(1).square().sum())))
    assert sorted(gone) == (~kept).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.3])
def test_lasso_meets_the_conditions_of_an_optimum(alpha: float) -> None:
    x, weight, units = layer(seed=1)
    z = contributions(x, weight, units, 7)
    y = z.sum(1) + normal(len(z), seed=2).double()
    gram, aim = z.t() @ z / len(z), z.t() @ y / len(z)
    penalty = torch.full((7,), alpha * float(aim.abs().max()), dtype=torch.float64)
    penalty[4] = 0

    beta = lasso(gram, aim, penalty)

    slope = aim - gram @ beta  # the negative gradient of the smooth part
    alive = beta != 0
    torch.testing.assert_close(slope[alive], (penalty * beta.sign())[alive], atol=1e-6, rtol=1e-6)
    assert (slope[~alive].abs() <= penalty[~alive] + 1e-6).all()
    if alpha == 0:
        torch.testing.assert_close(beta, torch.from_numpy(np.linalg.lstsq(z.numpy(), y.numpy())[0]))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_the_lasso_keeps_exactly_so_many_units_and_those_that_must_stay(count: int) -> None:
    x, weight, units = layer(seed=5)
    z = contributions(x, weight, units, 7)
    removable = torch.tensor([True] * 6 + [False])

    kept = lasso_choice(z.t() @ z, z.t() @ z.sum(1), count, removable)

    assert int(kept.sum()) == count
    assert kept[6]


def test_the_lasso_finds_the_units_that_made_the_output() -> None:
    x, weight, units = layer(seed=8)
    z = contributions(x, weight, units, 7)
    y = z[:, [1, 4, 5]] @ torch.tensor([1.0, -0.8, 1.2]).double()

    kept = lasso_choice(z.t() @ z / len(z), z.t() @ y / len(z), 3, torch.ones(7, dtype=torch.bool))

    assert kept.nonzero()[:, 0].tolist() == [1, 4, 5]


def test_scales_of_kept_units_are_the_least_squares_solution() -> None:
    x, weight, units = layer(seed=2)
    z = contributions(x, weight, units, 7)
    kept = torch.tensor([True, False, True, True, False, True, False])

    found = scales(z.t() @ z, kept, ridge=1e-12)

    expected = np.linalg.lstsq(z[:, kept].numpy(), z.sum(1).numpy())[0]
    torch.testing.assert_close(found[kept], torch.from_numpy(expected))
    assert not found[~kept].any()


def test_least_squares_with_an_intercept_agrees_with_numpy() -> None:
    x, weight, _ = layer(seed=4)
    y = normal(2, 40, 3, seed=6).double()
    kept = torch.arange(14) % 3 > 0
    seen = Equations(40, x.mT @ x, x.mT @ y, y.square().sum(1), x.sum(1), y.sum(1))

    found = least_squares(seen.centred().xx, seen.centred().xy, weight, kept, ridge=1e-12)

    for group in range(2):
        rows = np.hstack([x[group][:, kept].numpy(), np.ones((40, 1))])
        expected, left, *_ = np.linalg.lstsq(rows, y[group].numpy())
        np.testing.assert_allclose(found[group][:, kept].numpy(), expected[:-1].T, rtol=1e-6, atol=1e-8)
        one = Equations(40, *(t[group : group + 1] for t in (seen.xx, seen.xy, seen.yy, seen.x, seen.y)))
        assert one.error(found[group : group + 1]) == pytest.approx(left.sum() / 40)
    assert not found[:, :, ~kept].any()


def test_where_nothing_is_known_the_old_weights_and_scales_stay() -> None:
    x, weight, units = layer(seed=4)
    x[:, :, units == 2] = 0
    x[:, :, units == 1] = x[:, :, units == 0]
    xx = x.transpose(1, 2) @ x
    kept = torch.ones(14, dtype=torch.bool)

    new = least_squares(xx, xx @ weight.transpose(1, 2), weight, kept)
    factors = scales(products(xx, weight, units, 7), torch.ones(7, dtype=torch.bool))

    torch.testing.assert_close(new, weight)
    torch.testing.assert_close(factors, torch.ones(7, dtype=torch.float64))


# -- choices on small networks ---------------------------------------------------------------------------------------

METHODS = {"thinet": (choose_thinet, rescale_), "lasso": (choose_lasso, refit_)}


def outputs(model: nn.Module, inputs: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(x) for x in inputs])


def zeroed(model: nn.Module, choice: Choice, groups: list[Group]) -> nn.Module:
    """A copy whose readers do not see what the choice removes."""
    twin = copy.deepcopy(model)
    for group in groups:
        for member in group.of("in"):
            gone = ~choice[group.name][member.units]
            twin.get_parameter(member.name).data[:, gone] = 0
    return twin


@pytest.mark.parametrize("method", METHODS)
def test_a_choice_leaves_the_network_alone_and_keeps_the_fraction_asked_for(method: str) -> None:
    model, choose = Branches(), METHODS[method][0]
    before = copy.deepcopy(model.state_dict())

    choice = choose(model, [SECOND, INNER, FLAT], pictures(), keep={"inner": 0.4, "second": 0.5})

    assert {name: int(kept.sum()) for name, kept in choice.items()} == {"inner": 4, "second": 5}
    assert list(choice) == ["inner", "second"]  # in the order in which they run
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = choose(model, [INNER, SECOND], pictures(), keep={"inner": 0.4, "second": 0.5})
    assert all(torch.equal(choice[name], again[name]) for name in choice)


@pytest.mark.parametrize("repair_", [rescale_, refit_])
def test_channels_that_repeat_others_go_without_a_trace(repair_: Callable[..., None]) -> None:
    model = Branches(twins=True)
    before = outputs(model, pictures())
    choice = {"inner": torch.tensor([True, False, True, False, False, True, False, True])}  # one of each pair
    damage = (outputs(zeroed(model, choice, [INNER]), pictures()) - before).abs().max()

    repair_(model, [INNER], choice, pictures(), positions=10**6)

    assert not model.outer.weight[:, ~choice["inner"]].any()
    assert (outputs(model, pictures()) - before).abs().max() < 0.01 * damage


def test_thinet_removes_what_greedy_on_contributions_removes() -> None:
    model = Branches()

    choice = choose_thinet(model, [INNER], pictures(), keep=0.375, positions=10**6)

    seen: list[Tensor] = []
    watch(model, ["outer"], pictures(), lambda _, x, y: seen.append(x))
    x, weight = torch.cat(seen), model.outer.weight.detach()
    z = torch.stack([F.conv2d(x[:, i : i + 1], weight[:, i : i + 1], padding=1).flatten() for i in range(8)])
    gone: list[int] = []
    for _ in range(5):
        left = [i for i in range(8) if i not in gone]
        gone.append(min(left, key=lambda i: float(z[[*gone, i]].sum(0).square().sum())))
    assert sorted(gone) == (~choice["inner"]).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_repairing_lowers_the_error_of_the_layer_that_reads(method: str) -> None:
    model = Branches()
    choose, repair_ = METHODS[method]
    choice = choose(model, [INNER], pictures(), keep=0.5, positions=10**6)
    repaired = copy.deepcopy(model)

    repair_(repaired, [INNER], choice, pictures(), positions=10**6)

    found = equations(model, model, "outer", pictures(), positions=10**6)
    origin = torch.zeros(1, 6, dtype=torch.float64)
    cut, new = (
        network.outer.weight.detach().double().flatten(1)[None]
        for network in (zeroed(model, choice, [INNER]), repaired)
    )
    assert not new[:, :, ~choice["inner"].repeat_interleave(9)].any()
    assert (
        found.error(new) < 0.9 * found.error(cut)
        if method == "lasso"
        else found.error(new, origin) < found.error(cut, origin)
    )


def test_fitting_all_layers_brings_the_network_closer_to_the_original() -> None:
    model, groups = Branches(), [INNER, SECOND, FLAT]
    choice = choose_lasso(model, groups, pictures(), keep=0.5, positions=10**6)
    before, unseen = outputs(model, pictures()), pictures(seed=50)
    cut = zeroed(model, choice, groups)
    errors = {}

    for name, options in {"ours": {}, "own targets": {"asymmetric": False}}.items():
        fitted = copy.deepcopy(model)
        refit_(fitted, groups, choice, pictures(), positions=10**6, **options)
        errors[name] = (outputs(fitted, pictures()) - before).square().sum()
        assert not fitted.last.weight[:, ~choice["reduce"].repeat_interleave(4)].any()

    assert errors["ours"] < errors["own targets"] < (outputs(cut, pictures()) - before).square().sum()
    assert (outputs(fitted, unseen) - outputs(model, unseen)).abs().mean() < (
        outputs(cut, unseen) - outputs(model, unseen)
    ).abs().mean()


def test_the_intercept_of_a_layer_without_bias_goes_to_the_norm_behind_it() -> None:
    model = Branches()
    model.second.weight.data[[2, 7]] = 0  # two channels that are constant
    model.second.bias.data[[2, 7]] = torch.tensor([0.7, 1.3])
    before = outputs(model, pictures())
    kept = torch.ones(10, dtype=torch.bool)
    kept[[2, 7]] = False

    refit_(model, [SECOND], {"second": kept}, pictures(), positions=10**6)

    torch.testing.assert_close(outputs(model, pictures()), before, atol=1e-3, rtol=1e-3)


def test_channels_that_several_layers_read_are_chosen_for_all_of_them() -> None:
    model = Branches()
    reads = list(STREAM.of("in"))

    together = choose_thinet(model, [STREAM], pictures(), keep=0.5, positions=10**6)["stem"]

    sums = torch.zeros(6, 6, dtype=torch.float64)
    for member in reads:
        layer = member.name.removesuffix(".weight")
        module = model.get_submodule(layer)
        xx, _ = gram(model, layer, pictures(), positions=10**6)
        columns = torch.arange(6).repeat_interleave(module.weight[0, 0].numel())
        sums += products(xx, module.weight.detach().double().flatten(1)[None], columns, 6)
    assert torch.equal(together, greedy(sums, 3, torch.ones(6, dtype=torch.bool)))


@pytest.mark.parametrize("method", METHODS)
def test_groups_that_cannot_be_told_by_what_they_give_are_refused(method: str) -> None:
    choose = METHODS[method][0]
    nobody = Group(
        "last", 5, (Member("last.weight", 0, torch.arange(5), "out"),), torch.ones(5, dtype=torch.bool)
    )

    with pytest.raises(OptionError, match="inner: keep is the fraction"):
        choose(Branches(), [INNER], pictures(), keep=1.5)
    with pytest.raises(OptionError, match=r"no group 'iner'. Did you mean 'inner'"):
        choose(Branches(), [INNER], pictures(), keep={"iner": 0.5})
    with pytest.raises(StepError, match="last: no layer reads these channels"):
        choose(Branches(), [nobody], pictures(), keep=0.5)
