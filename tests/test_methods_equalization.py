"""Cross-layer equalization: the function stays, ranges become equal, and 8 bits per tensor are enough again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.errors import ModelError, OptionError, StepError
from gossamer.methods.cross_layer_equalization import equalize, replace_relu6_
from gossamer.methods.layer_graph import layer_graph
from gossamer.methods.layer_inputs import Moments, moments
from gossamer.models import load_model
from rounding_samples import Cifar, example, folded, normal, quantize


def trained_like(name: str) -> nn.Module:
    """A network whose norms have statistics as after training, folded."""
    model = load_model(name)
    generator = torch.Generator().manual_seed(3)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.weight, 0.1, 2.0),
                (norm.bias, -1, 1),
                (norm.running_var, 0.1, 1),
            ):
                assert values is not None
                values.data.copy_(
                    torch.rand(len(norm.running_mean), generator=generator) * (high - low) + low
                )
    return folded(model)


NETWORKS = {
    "resnet": lambda: folded(load_model("resnet20", "resnet20_cifar10")),
    "lenet": lambda: load_model("lenet5", "lenet5_caffe_mnist"),
    "mobilenet": lambda: trained_like("mobilenet-small"),
    "fresh mobilenet": lambda: folded(load_model("mobilenet-small")),
}


@pytest.mark.parametrize(
    ("network", "relu6", "pairs"),
    [
        ("resnet", "skip", 9),
        ("lenet", "skip", 3),
        ("mobilenet", "skip", 7),
        ("mobilenet", "replace", 24),
        ("fresh mobilenet", "replace", 24),
    ],
)
def test_equalization_leaves_the_function_and_makes_both_ranges_equal(
    network: str, relu6: str, pairs: int
) -> None:
    model = NETWORKS[network]()
    equalized, x = copy.deepcopy(model), example(model, 4)

    report = equalize(equalized, x, relu6=relu6)

    replace_relu6_(model, report.replaced)
    with torch.no_grad():
        truth, found = model(x), equalized(x)
    assert float((found - truth).abs().max() / truth.abs().max()) < 1e-4
    assert len(report.pairs) == pairs
    for pair in report.pairs:
        torch.testing.assert_close(*pair.after, rtol=5e-3, atol=0)


def test_a_pair_is_scaled_by_the_square_root_of_the_ratio_of_its_ranges() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    r1 = model[0].weight.detach().double().abs().amax(1)
    r2 = model[2].weight.detach().double().abs().amax(0)
    bias = model[0].bias.detach().clone()

    [pair] = equalize(model, normal(2, 3)).pairs

    torch.testing.assert_close(pair.scale, (r1 / r2).sqrt())
    torch.testing.assert_close(pair.after[0], (r1 * r2).sqrt())
    torch.testing.assert_close(pair.after[1], (r1 * r2).sqrt())
    torch.testing.assert_close(model[0].bias.detach().double(), bias / pair.scale)


def test_a_dead_channel_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.PReLU(4), nn.Conv2d(4, 3, 1))
    model[0].weight.data[1] = 0
    model[2].weight.data[:, 2] = 0
    before, x = copy.deepcopy(model), normal(2, 2, 5, 5)

    [pair] = equalize(model, x).pairs

    assert pair.through == ("prelu",)
    assert (pair.scale == 1).tolist() == [False, True, True, False]
    assert torch.equal(model[0].weight[2], before[0].weight[2])
    torch.testing.assert_close(model(x), before(x), atol=1e-5, rtol=1e-4)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.shared = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4).eval()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = x + F.relu6(self.b(x))
        x = F.relu(self.shared(F.relu(self.shared(x))))
        y: Tensor = self.head(self.norm(self.c(x)).amax((2, 3)))
        return y


def test_branches_shared_layers_norms_and_other_operators_make_no_pair_and_are_told() -> None:
    model = Branches().eval()
    graph = layer_graph(model, normal(2, 4, 3, 3))

    assert not graph.links
    assert "relu" not in graph.loose["a"]
    assert graph.loose["a"] == "its output has 2 readers"
    assert graph.loose["b"] == "feeds add, which does not pass a scale on"
    assert graph.loose["shared"] == "its parameters are used more than once"
    assert graph.loose["c"] == "feeds batch_norm, which does not pass a scale on"
    assert graph.loose["head"] == "its output leaves the network"
    assert graph.before_relu == {"a.weight"}
    with pytest.raises(
        StepError, match=r"found no pair of layers \(a: its output has 2 readers.*Fold the norms"
    ):
        equalize(model, normal(2, 4, 3, 3))


def test_a_relu6_that_cannot_be_replaced_is_left_and_told() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))
            self.act = nn.ReLU6()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.c(F.relu6(self.b(self.act(self.a(x)))))
            return y

    model = Functional()

    report = equalize(model, normal(2, 3), relu6="replace")

    assert report.replaced == ("act",)
    assert type(model.act) is nn.ReLU
    assert "cannot be replaced" in report.skipped["b"]


def test_a_weight_with_a_format_is_not_equalized() -> None:
    model = quantize(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), bits=8)

    with pytest.raises(StepError, match=r"0: its weight is computed \(does it carry a format\?\)"):
        equalize(model, normal(2, 3))
    with pytest.raises(OptionError, match="'skip' or 'replace'"):
        equalize(model, normal(2, 3), relu6="keep")


def test_a_model_that_cannot_be_traced_is_told() -> None:
    class Data(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ModelError, match="Data cannot be traced"):
        layer_graph(Data(), normal(2))


def test_a_high_bias_moves_on_and_the_function_stays_where_the_channel_is_always_high() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 2, groups=3), nn.ReLU()
    )
    model.append(nn.Flatten()).append(nn.Linear(24, 3))
    model[0].bias.data += torch.tensor([0.0, 4, 0, 6, -3, 9])
    x = normal(64, 2, 8, 8)
    statistics = moments(model, ["0", "3"], [x])
    absorbing, plain = copy.deepcopy(model), copy.deepcopy(model)

    report = equalize(absorbing, x, statistics=statistics)
    equalize(plain, x)

    first = report.pairs[0]
    assert first.absorbed is not None
    expected = ((statistics["0"].mean - 3 * statistics["0"].std) / first.scale).clamp_min(0)
    torch.testing.assert_close(first.absorbed, expected)
    assert ((first.absorbed > 0).tolist()) == [False, True, False, True, False, True]
    torch.testing.assert_close(plain[0].bias - absorbing[0].bias, expected.float(), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        error = (absorbing(x) - model(x)).abs().mean() / model(x).abs().mean()
    assert error < 2e-3  # beyond three deviations there is a little left
    assert absorbing[0](x).mean() < plain[0](x).mean() - 1


def test_a_high_bias_stays_where_the_next_layer_pads_with_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    statistics = {"0": Moments(torch.full((4,), 9.0), torch.ones(4))}

    report = equalize(model, normal(2, 2, 5, 5), statistics=statistics)

    assert report.pairs[0].absorbed is None
    assert "pads with zeros" in report.skipped["0"]
    with pytest.raises(OptionError, match="statistics of '2', which starts no pair"):
        equalize(model, normal(2, 2, 5, 5), statistics={"2": statistics["0"]})


@pytest.mark.slow
def test_equalization_restores_a_network_whose_channel_ranges_were_spread() -> None:
    cifar = Cifar()
    spread = copy.deepcopy(cifar.model)
    generator = torch.Generator().manual_seed(0)
    for link in layer_graph(spread, cifar.x[:2]).links:
        first, second = spread.get_submodule(link.first.path), spread.get_submodule(link.second.path)
        factor = 10 ** (torch.rand(len(first.weight), generator=generator) * 2 - 1)
        first.weight.data *= factor[:, None, None, None]
        first.bias.data *= factor
        second.weight.data /= factor[:, None, None]
    equalized = copy.deepcopy(spread)

    equalize(equalized, cifar.x[:2])

    exact = cifar.percent(cifar.model)
    collapsed, restored = (cifar.percent(quantize(m, bits=8)) for m in (spread, equalized))
    figures = f"float {exact:.2f}, spread per tensor {collapsed:.2f}, equalized {restored:.2f}"
    assert abs(exact - cifar.percent(spread)) < 0.1
    assert collapsed < exact - 5, figures
    assert restored > exact - 0.5, figures
