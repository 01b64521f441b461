"""For every way in which channels meet: a random cut computes what the masked original computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer.errors import ModelError
from gossamer.pruning import cut, find_groups, masked
from gossamer.pruning.trace import arguments, tensors_of
from test_pruning_surgery import halves, shaken
from toy_networks import TOYS, Net, build, conv, noise

# groups and the numbers of their units that can go, counted by hand
EXPECTED = {
    "plain": {"0": 8, "2": 6},
    "batch norm": {"0": 8},
    "instance norm": {"0": 8},
    "group norm": {"0": 4},
    "residual": {"a": 8},
    "concat": {"a": 4, "b": 5},
    "dense": {"a": 6, "b": 4},
    "chunk": {"a": 6},
    "chunk to two readers": {"a": 6},
    "split by sizes": {"a": 12},
    "halves by slices": {"a": 6},
    "unbind and stack": {"a": 6},
    "glu": {"0": 6},
    "grouped": {"0": 4},
    "depthwise": {"0": 8},
    "depthwise, two per channel": {"0": 4},
    "flatten": {"0": 6, "4": 10},
    "linear to picture": {"0": 6},
    "pixel shuffle": {"0": 4},
    "pixel unshuffle": {"0": 4, "2": 6},
    "channel shuffle of groups": {"0": 4},
    "transposed": {"0": 6, "1": 8},
    "transposed and grouped": {"0": 3},
    "pad channels": {"a": 6},
    "excite": {"a": 8, "down": 3},
    "spatial gate": {"a": 6},
    "prelu": {"0": 8},
    "layer scale": {"a": 8},
    "attention": {"q": 4},
    "attention of as many heads as dims": {"q": 4},
    "grouped queries": {"q": 3},
    "one key head": {"q": 6},
    "fused attention": {"qkv": 4},
    "split attention": {"c_attn": 4},
    "transformer layer": {"self_attn": 3, "linear1": 20},
    "gated linear units": {"gate": 10},
    "embedding tied to the output": {"up": 10, "down": 6},
    "learned positions": {"a": 8},
    "class token": {"a": 8},
    "used twice": {"a": 8},
    "einsum": {"first": 8},
    "einsum with an ellipsis": {"first": 8},
    "einsum of three": {"first": 8},
    "recurrent": {},
    "rms norm written out": {},
    "layer norm written out": {},
    "softmax over channels": {"2": 6},
    "layer norm": {"2": 9},
}


@pytest.mark.parametrize("name", TOYS)
def test_a_random_cut_equals_the_masked_network(name):
    model, example = build(name)
    model = shaken(model)
    args, _ = arguments(example)
    groups = find_groups(model, example)
    if name in EXPECTED:
        assert {group.name: int(group.removable.sum()) for group in groups} == EXPECTED[name]
    if not len(groups):
        assert groups.walls
        return
    choice = halves(groups)

    smaller, plan = cut(model, choice, groups)

    assert not plan.walls
    with torch.no_grad(), masked(model, choice, groups):
        expected = tensors_of(model(*args))
    received = tensors_of(smaller(*args))
    for one, other in zip(received, expected, strict=True):
        assert (one.detach() - other).abs().max() <= 1e-5 * other.abs().max()
    sum(output.float().sum() for output in received).backward()
    again = type(plan).from_json(plan.to_json()).apply(model)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in smaller.state_dict().items())


@pytest.mark.parametrize("name", ["residual", "channel shuffle", "fused attention", "grouped"])
def test_a_cut_network_packs_and_reopens(name, tmp_path):
    model, example = build(name)
    groups = find_groups(model, example)
    smaller, _ = cut(model, halves(groups), groups)

    gs.pack(smaller, tmp_path / "small.goss", example)

    received = gs.open(tmp_path / "small.goss")(example.numpy())
    expected = smaller(example).detach().numpy()
    assert abs(received - expected).max() <= 1e-5 * abs(expected).max()


def test_walls_say_where_and_why():
    model = nn.Sequential(conv(3, 8), nn.Softmax(1), conv(8, 4)).eval()

    groups = find_groups(model, noise(2, 3, 8, 8))

    assert not len(groups)
    assert [str(wall) for wall in groups.walls] == [
        "not pruned through here: aten.softmax at 1: softmax runs over these channels"
    ]


def test_layer_norms_let_channels_through_when_asked():
    model, example = build("layer norm")

    groups = find_groups(model, example, through_norms=True)
    smaller, _ = cut(model, halves(groups), groups)

    assert [group.name for group in groups] == ["0", "2"]
    assert not groups.exact
    assert smaller(example).shape == model(example).shape
    assert smaller[1].normalized_shape == (smaller[0].out_features,)


@pytest.mark.parametrize("name", ["rms norm written out", "layer norm written out"])
def test_norms_that_are_written_out_are_a_wall_of_that_name_unless_let_through(name):
    model, example = build(name)

    stopped = find_groups(model, example)
    groups = find_groups(model, example, through_norms=True)
    smaller, _ = cut(model, {"first": torch.arange(8) < 5}, groups)

    assert "a normalization runs over these channels" in str(stopped.walls[0])
    assert [group.name for group in groups] == ["first"]
    assert not groups.exact
    assert smaller.last.in_features == 5
    assert smaller(example).shape == model(example).shape


def test_a_mean_that_is_no_statistic_of_a_norm_stays_a_wall_even_through_norms():
    model = nn.Sequential(nn.Linear(6, 8), Net(lambda m, x: x.mean(-1, keepdim=True) * 2), nn.Linear(1, 3))

    groups = find_groups(model.eval(), noise(2, 6), through_norms=True)

    assert not len(groups)
    assert "mean runs over these channels" in str(groups.walls[0])


def test_members_cover_every_tensor_with_their_roles():
    model = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), conv(4, 4, groups=4), nn.Flatten(), nn.Linear(64, 2)
    ).eval()

    (group,) = find_groups(model, noise(1, 3, 4, 4))

    assert [(member.name, member.dim, member.role) for member in group.members] == [
        ("0.weight", 0, "out"),
        ("0.bias", 0, "with"),
        *((f"1.{name}", 0, "with") for name in ("weight", "bias", "running_mean", "running_var")),
        ("2.weight", 0, "with"),
        ("2.bias", 0, "with"),
        ("4.weight", 1, "in"),
    ]
    assert torch.equal(group.members[-1].units, torch.arange(4).repeat_interleave(16))


def test_the_model_is_left_as_it_was():
    model, example = build("transformer layer")
    model.train()
    before = copy.deepcopy(model.state_dict())

    find_groups(model, example)

    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_network_that_decides_by_values_is_refused_with_a_remedy():
    model = Net(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x), a=conv(3, 4), b=conv(3, 4))

    with pytest.raises(ModelError, match=r"cannot be traced.*rewrite it with torch.where"):
        find_groups(model, noise(1, 3, 8, 8))


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="Pass an example that forward takes"):
        find_groups(conv(3, 4), noise(1, 5, 8, 8))


def test_time_out_says_where_it_stood():
    with pytest.raises(ModelError, match="it stood at"):
        find_groups(conv(3, 4), noise(1, 3, 8, 8), seconds=0.0)
