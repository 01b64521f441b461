"""A cut network computes what the masked original computes; what it is asked to do wrong is said."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gossamer.errors import OptionError, StepError
from gossamer.models import load_model
from gossamer.pruning import cut, find_groups, masked


def halves(groups, *, seed=0):
    """A choice that drops about half of what can go."""
    generator = torch.Generator().manual_seed(seed)
    choice = {}
    for group in groups:
        keep = ~(group.removable & (torch.rand(group.size, generator=generator) < 0.5))
        if not bool(keep.any()):
            keep[0] = True
        choice[group.name] = keep
    return choice


def shaken(model, *, seed=0):
    """The model in eval mode, every weight random, so that nothing agrees by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if "var" in name else noise - 0.5)
    return model.eval()


@pytest.mark.parametrize(("name", "shape"), [("lenet5", (2, 1, 28, 28)), ("resnet20", (2, 3, 32, 32))])
def test_a_cut_network_equals_the_masked_one(name, shape):
    model = shaken(load_model(name))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    groups = find_groups(model, x)
    choice = halves(groups)

    smaller, plan = cut(model, choice, groups)

    with masked(model, choice, groups):
        expected = model(x)
    received = smaller(x)
    assert (received - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert sum(p.numel() for p in smaller.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    assert not plan.walls
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    received.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())


def test_the_plan_repeats_the_cut_on_a_fresh_model():
    model = shaken(load_model("lenet5"))
    groups = find_groups(model, torch.randn(1, 1, 28, 28))
    smaller, plan = cut(model, halves(groups), groups)

    again = type(plan).from_json(plan.to_json()).apply(model)

    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in smaller.state_dict().items()
    }
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in smaller.state_dict().items())


def test_mistakes_in_a_choice_are_named():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    groups = find_groups(model, torch.randn(1, 1, 8, 8))
    (group,) = groups

    for choice, said in (
        ({"conv": torch.ones(4, dtype=torch.bool)}, "has no group 'conv'"),
        ({group.name: torch.ones(4)}, "expected torch.bool"),
        ({group.name: torch.ones(5, dtype=torch.bool)}, r"expected torch.bool \[4\]"),
        ({group.name: torch.zeros(4, dtype=torch.bool)}, "Keep at least one"),
    ):
        with pytest.raises(OptionError, match=said):
            cut(model, choice, groups)
    with pytest.raises(StepError, match="nothing is cut"):
        cut(model, {group.name: torch.ones(4, dtype=torch.bool)}, groups)
