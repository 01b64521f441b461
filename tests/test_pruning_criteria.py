"""Channel criteria: every score equals a loop over units, and orders channels better than chance on a trained network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.errors import OptionError
from gossamer.pruning import CHANNEL_CRITERIA, Evidence, score
from gossamer.pruning.channel_criteria import NORMALIZATIONS
from gossamer.pruning.group import Group, Member


class Net(nn.Module):
    """conv - norm - ReLU - pool - conv - ReLU - flatten - linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        logits: Tensor = self.fc(F.relu(self.conv2(x)).flatten(1))
        return logits


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith("bn1") and tensor.is_floating_point():
                tensor.copy_(torch.rand(6) + 0.3)
        model.bn1.weight[2] *= -1
    return model.eval()


def first() -> Group:
    same = torch.arange(6)
    names = ("conv1.bias", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var")
    others = tuple(Member(name, 0, same, "with") for name in names)
    makes, reads = Member("conv1.weight", 0, same, "out"), Member("conv2.weight", 1, same, "in")
    return Group("conv1", 6, (makes, *others, reads), torch.ones(6, dtype=torch.bool))


def second() -> Group:
    same = torch.arange(4)
    members = (
        Member("conv2.weight", 0, same, "out"),
        Member("conv2.bias", 0, same, "with"),
        Member("fc.weight", 1, same.repeat_interleave(9), "in"),
    )
    return Group("conv2", 4, members, torch.ones(4, dtype=torch.bool))


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 3, 8, 8, generator=generator), torch.randint(0, 5, (5,), generator=generator))
        for _ in range(count)
    ]


def evidence(model: nn.Module, **options: object) -> Evidence:
    return Evidence(model, [first(), second()], batches(), **options)


def read_by(model: Net, layer: nn.Module) -> Tensor:
    """What the layer receives on all batches."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for x, _ in batches():
        model(x)
    handle.remove()
    return torch.cat(seen).double()


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_norms_are_those_of_the_filters_with_the_norm_folded_in(criterion: str, power: int) -> None:
    model = net()
    bn = model.bn1

    scores = score(first(), evidence(model), criterion)

    for unit in range(6):
        factor = abs(float(bn.weight.detach()[unit])) / float(bn.running_var[unit] + bn.eps) ** 0.5
        expected = (model.conv1.weight.detach()[unit].abs() * factor).pow(power).sum() ** (1 / power)
        assert float(scores[unit]) == pytest.approx(float(expected), rel=1e-5)
    assert scores.dtype == torch.float64


def test_the_norm_of_a_filter_does_not_change_when_the_norm_behind_it_divides_a_scale_out_again() -> None:
    model, scaled = net(), net()
    with torch.no_grad():
        for tensor in (scaled.conv1.weight, scaled.conv1.bias, scaled.bn1.running_mean):
            tensor[1] *= 50
        scaled.bn1.running_var[1] = (scaled.bn1.running_var[1] + scaled.bn1.eps) * 2500 - scaled.bn1.eps

    before, after = (score(first(), evidence(m), "l2") for m in (model, scaled))

    torch.testing.assert_close(before, after, rtol=1e-5, atol=0)


def test_outgoing_norms_gather_all_columns_behind_a_flatten() -> None:
    model = net()

    scores = score(second(), evidence(model), "outgoing")
    together = score(second(), evidence(model), "product")

    for unit in range(4):
        columns = model.fc.weight.detach()[:, 9 * unit : 9 * unit + 9].double()
        assert float(scores[unit]) == pytest.approx(float(columns.norm()), rel=1e-6)
        assert float(together[unit]) == pytest.approx(
            float(columns.norm() * model.conv2.weight.detach()[unit].double().norm()), rel=1e-6
        )


def test_tied_layers_count_by_their_mean_and_absent_ones_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(4, 2, bias=False))
    whole, part = (
        torch.arange(3),
        torch.tensor([2, -1]),
    )  # the second layer makes unit 2 and a foreign channel
    members = (Member("0.weight", 0, whole, "out"), Member("1.weight", 0, part, "out"))
    group = Group("0", 3, members, torch.ones(3, dtype=torch.bool))

    scores = score(group, Evidence(model, [group]), "l1")

    a, b = (layer.weight.detach().double().abs().sum(dim=1) for layer in model)
    assert scores.tolist() == pytest.approx([float(a[0]), float(a[1]), float((a[2] + b[0]) / 2)])


def test_group_l2_is_the_mean_of_squares_over_weights_and_scales_over_its_own_mean() -> None:
    model = net()

    scores = score(first(), evidence(model), "group-l2")

    plain = []
    with torch.no_grad():
        for u in range(6):
            squares = [model.conv1.weight[u].square().sum(), model.bn1.weight[u] ** 2]
            squares.append(model.conv2.weight[:, u].square().sum())
            plain.append(float(sum(squares)) / 3)
    expected = torch.tensor(plain, dtype=torch.float64)
    torch.testing.assert_close(scores, expected / expected.mean(), rtol=1e-5, atol=0)
    assert float(scores.mean()) == pytest.approx(1)


def test_apoz_is_one_minus_the_share_of_zeros_where_the_unit_is_read() -> None:
    model = net()
    a = read_by(model, model.conv2)
    b = read_by(model, model.fc).reshape(-1, 4, 9)

    one, two = (score(group, evidence(model), "apoz") for group in (first(), second()))

    torch.testing.assert_close(one, 1 - (a == 0).double().mean(dim=(0, 2, 3)))
    torch.testing.assert_close(two, 1 - (b == 0).double().mean(dim=(0, 2)))


def test_apoz_refuses_activations_that_are_no_relu_unless_eps_says_what_is_zero() -> None:
    class Smooth(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = F.gelu(self.bn1(self.conv1(x)))
            logits: Tensor = self.fc(F.relu(self.conv2(F.max_pool2d(x, 2))).flatten(1))
            return logits

    torch.manual_seed(0)
    model = Smooth().eval()

    with pytest.raises(OptionError, match=r"conv1: APoZ counts zeros behind a ReLU, but conv2 .* Set eps"):
        score(first(), evidence(model), "apoz")
    scores = score(first(), evidence(model, eps=0.1), "apoz")

    expected = (read_by(model, model.conv2).abs() > 0.1).double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(scores, expected)


def test_mean_and_variance_are_those_of_the_activations() -> None:
    model = net()
    a, b = read_by(model, model.conv2), read_by(model, model.fc).reshape(-1, 4, 9)

    mean = score(first(), evidence(model), "mean-activation")
    plain = score(first(), evidence(model), "variance")
    flat = score(second(), evidence(model), "variance")

    torch.testing.assert_close(mean, a.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(plain, a.var(dim=(0, 2, 3), correction=0))
    torch.testing.assert_close(flat, b.var(dim=0, correction=0).mean(dim=1))  # a bias mends each column alone


def test_taylor_is_the_derivative_of_the_loss_along_the_path_that_fades_a_unit_out() -> None:
    model = net()
    group = first()

    scores = score(group, evidence(model), "taylor")

    names = ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"]
    for unit in range(6):
        slopes = []
        for x, y in batches():
            fade = torch.ones((), dtype=torch.float64, requires_grad=True)
            values = {n: t.detach().double() for n, t in model.state_dict().items() if t.is_floating_point()}
            for name in names:
                rows = (torch.arange(6) == unit).reshape(-1, *[1] * (values[name].dim() - 1))
                values[name] = torch.where(rows, values[name] * fade, values[name])
            column = (torch.arange(6) == unit).reshape(1, -1, 1, 1)
            values["conv2.weight"] = torch.where(
                column, values["conv2.weight"] * fade, values["conv2.weight"]
            )
            loss = F.cross_entropy(torch.func.functional_call(model, values, (x.double(),)), y)
            (slope,) = torch.autograd.grad(loss, fade)
            slopes.append(abs(float(slope)))
        assert float(scores[unit]) == pytest.approx(sum(slopes) / 3, rel=1e-3, abs=1e-6)


def test_the_activation_form_of_taylor_is_activation_times_gradient() -> None:
    model = net()

    one, two = (score(group, evidence(model), "taylor-activation") for group in (first(), second()))

    expected_one, expected_two = torch.zeros(6), torch.zeros(4)
    for x, y in batches():
        a = F.max_pool2d(F.relu(model.bn1(model.conv1(x))), 2).detach().requires_grad_()
        b = F.relu(model.conv2(a)).flatten(1)
        b.retain_grad()
        F.cross_entropy(model.fc(b), y).backward()
        expected_one += (a * a.grad).sum(dim=(0, 2, 3)).abs().detach() / 3
        expected_two += (b * b.grad).reshape(-1, 4, 9).sum(dim=(0, 2)).abs().detach() / 3
    torch.testing.assert_close(one.float(), expected_one, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(two.float(), expected_two, rtol=1e-3, atol=1e-6)


def test_gathering_gradients_leaves_flags_modes_and_gradients_as_they_were() -> None:
    model = net().train()
    model.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    score(first(), evidence(model), "taylor")
    score(first(), evidence(model), "variance")

    assert model.training
    assert model.bn1.training
    assert not model.conv1.weight.requires_grad
    assert model.conv2.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_scale_is_the_size_of_the_norm_s_gamma_and_a_group_without_norm_has_none() -> None:
    model = net()

    scores = score(first(), evidence(model), "scale")

    torch.testing.assert_close(scores, model.bn1.weight.detach().abs().double())
    with pytest.raises(OptionError, match="conv2: this criterion needs a batch or instance norm"):
        score(second(), evidence(model), "scale")


def test_random_scores_repeat_with_the_seed_and_differ_between_groups_and_seeds() -> None:
    model = net()

    one, again = (score(first(), evidence(model, seed=3), "random") for _ in range(2))
    other = score(first(), evidence(model, seed=4), "random")
    two = score(second(), evidence(model, seed=3), "random")

    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[:4], two)


@pytest.mark.parametrize("criterion", CHANNEL_CRITERIA)
def test_every_criterion_gives_one_finite_score_per_unit_and_permutes_with_the_units(criterion: str) -> None:
    model, permuted = net(), net()
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    with torch.no_grad():
        for member in first().members:
            permuted.state_dict()[member.name].copy_(
                model.state_dict()[member.name].index_select(member.dim, order)
            )

    scores, moved = (score(first(), evidence(m), criterion) for m in (model, permuted))

    assert scores.shape == (6,)
    assert scores.dtype == torch.float64
    assert bool(scores.isfinite().all())
    assert float(scores.min()) >= 0
    if criterion != "random":
        torch.testing.assert_close(moved, scores[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_normalized_scores_have_the_same_order_and_a_common_unit(normalize: str) -> None:
    model = net()
    plain = score(first(), evidence(model), "l1")

    scores = score(first(), evidence(model), "l1", normalize=normalize)

    unit = {"none": 1.0, "mean": float(plain.mean()), "max": float(plain.max())}[normalize]
    torch.testing.assert_close(scores, plain / unit)


def test_wrong_options_and_missing_evidence_say_what_to_do() -> None:
    model, group = net(), first()

    with pytest.raises(OptionError, match=r"unknown channel criterion 'appoz'. Did you mean 'apoz'"):
        score(group, evidence(model), "appoz")
    with pytest.raises(OptionError, match="normalize is 'sum', expected one of 'none', 'mean', 'max'"):
        score(group, evidence(model), "l1", normalize="sum")
    with pytest.raises(OptionError, match="an example input is needed"):
        score(group, Evidence(model, [group]), "l1")
    with pytest.raises(OptionError, match="looks at activations, and there is no data"):
        score(group, Evidence(model, [group]), "variance")
    with pytest.raises(OptionError, match="Batch 0 has no labels"):
        score(group, Evidence(model, [group], [(batches()[0][0], None)]), "taylor")
    with pytest.raises(OptionError, match="conv2: reads none of the groups"):
        score(group, Evidence(model, [second()], batches()), "variance")


def test_at_most_so_many_batches_are_used() -> None:
    model = net()
    some = [*batches(2), (torch.full((5, 3, 8, 8), float("nan")), torch.zeros(5, dtype=torch.long))]

    used = Evidence(model, [first()], some, max_batches=2)

    for criterion in ("variance", "taylor"):
        expected = score(first(), Evidence(model, [first()], batches(2)), criterion)
        assert torch.equal(score(first(), used, criterion), expected)
