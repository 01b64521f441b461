"""A plan repeats a cut, and refuses what cannot be one; an optimizer is cut along."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from gossamer.errors import ModelError, OptionError
from gossamer.pruning import Plan, cut, find_groups

KEEP = torch.tensor([True, False, True, True])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def planned() -> tuple[nn.Module, nn.Module, Plan]:
    model = network()
    groups = find_groups(model, torch.randn(2, 3))
    return model, *cut(model, {"0": KEEP}, groups)


def test_a_plan_lists_what_stays():
    _, _, plan = planned()

    assert json.loads(plan.to_json()) == {
        "version": 1,
        "kept": {"0": [0, 2, 3]},
        "tensors": {"0.weight": {"0": [0, 2, 3]}, "0.bias": {"0": [0, 2, 3]}, "2.weight": {"1": [0, 2, 3]}},
        "attributes": {"0": {"out_features": 3}, "2": {"in_features": 3}},
        "shapes": {"0.weight": [4, 3], "0.bias": [4], "2.weight": [2, 4]},
    }
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_refuses_a_network_of_other_shapes():
    _, smaller, plan = planned()

    with pytest.raises(ModelError, match=r"0.weight has shape \[3, 3\], expected \[4, 3\]"):
        plan.apply(smaller)
    with pytest.raises(ModelError, match=r"has no tensor '0\.weight'"):
        plan.apply(nn.Linear(3, 4))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", 2, "version 2, expected 1"),
        ("kept", [], "expected a table"),
        ("kept", {"0": [2, 1]}, "in rising order"),
        ("tensors", {"0.weight": {"0": []}}, "at least one index"),
        ("tensors", {"0.weight": {"zero": [1]}}, "is no dimension"),
        ("tensors", {"0.weight": {"0": [-1]}}, "integers from 0"),
        ("tensors", {"0.weight": {"0": [True]}}, "integers from 0"),
        ("attributes", {"0": {"out_features": "3"}}, "integers from 0"),
        ("shapes", {"0.weight": 4}, "expected a list"),
    ],
)
def test_a_damaged_plan_is_refused(key, value, said):
    _, _, plan = planned()
    data = json.loads(plan.to_json())
    data[key] = value

    with pytest.raises(OptionError, match=said):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tensors", {"0.weight": {"0": [9]}}, "has no index 9"),
        ("tensors", {"0.weight": {"7": [0]}}, "dimension 7"),
        ("attributes", {"0": {"out_features": 5}}, "cannot become 5"),
        ("attributes", {"0": {"forward": 1}}, "cannot become 1"),
        ("attributes", {"0": {"training": 1}}, "cannot become 1"),
        ("attributes", {"9": {"out_features": 3}}, "has no module '9'"),
    ],
)
def test_a_plan_touches_nothing_that_it_may_not(key, value, said):
    model, _, plan = planned()
    data = json.loads(plan.to_json())
    data[key] = value

    with pytest.raises(ModelError, match=said):
        Plan.from_json(json.dumps(data)).apply(model)


def test_text_that_is_no_json_is_refused():
    with pytest.raises(OptionError, match="this is no JSON"):
        Plan.from_json("{")


@pytest.mark.parametrize("kind", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_an_optimizer_is_cut_along(kind):
    model = network()
    optimizer = kind(model.parameters())
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    momenta = {
        name: [v for v in optimizer.state[p].values() if v.shape == p.shape]
        for name, p in model.named_parameters()
    }
    groups = find_groups(model, torch.randn(2, 3))

    smaller, _ = cut(model, {"0": KEEP}, groups, optimizer=optimizer)

    parameters = dict(smaller.named_parameters())
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [
        id(p) for p in parameters.values()
    ]
    for name, dim in (("0.weight", 0), ("0.bias", 0), ("2.weight", 1)):
        kept = [v for v in optimizer.state[parameters[name]].values() if v.dim() and v.numel() > 1]
        for new, old in zip(kept, momenta[name], strict=True):
            assert torch.equal(new, old.index_select(dim, KEEP.nonzero().flatten()))
    smaller(torch.randn(2, 3)).sum().backward()
    optimizer.step()
