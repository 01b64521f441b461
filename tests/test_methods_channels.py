"""Methods that choose channels by what layers give: collector, solvers and choices, each against brute force or numpy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.methods.layer_ends import look
from gossamer.methods.layer_inputs import watch
from gossamer.methods.reconstruction import equations
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
