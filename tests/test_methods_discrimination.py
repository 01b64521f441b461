"""Discrimination-aware channel pruning: heads, gradients and the additive choice, against plain autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from channel_samples import FLAT, INNER, SECOND, Branches, pictures
from gossamer.errors import OptionError
from gossamer.methods.auxiliary_heads import Head, ends_of, learn_heads
from gossamer.methods.channel_readers import readers
from gossamer.methods.discrimination_aware import (
    Discrimination,
    choose_discrimination_aware,
    retrain_,
    slice_norms,
)
from gossamer.models.resnet_cifar import ResNetCifar
from rounding_samples import normal

WHOLE = Discrimination(segments=1)  # no head but the network's own


def labelled() -> list[tuple[Tensor, Tensor]]:
    """Pictures with the classes that the network itself finds."""
    model = Branches()
    with torch.no_grad():
        return [(x, model(x).argmax(1)) for x in pictures()]


def outer_of(model: Branches, x: Tensor) -> Tensor:
    stem = F.relu(model.stem(x))
    y: Tensor = model.outer(F.relu(model.inner(stem)))
    return y


def loss_of(model: Branches, reference: Branches, balance: float) -> Tensor:
    """The mixed loss for the layer `outer`, summed over batches."""
    total = torch.zeros(())
    for x, labels in labelled():
        total = total + F.mse_loss(outer_of(model, x), outer_of(reference, x).detach()) / 2
        total = total + balance * F.cross_entropy(model(x), labels)
    return total


@pytest.mark.parametrize("norm", ["frobenius", "l21"])
@pytest.mark.parametrize("balance", [0.0, 1.0, 50.0])
def test_the_first_channel_is_the_one_with_the_greatest_gradient_at_zero(balance: float, norm: str) -> None:
    model, reference = Branches(), Branches()
    options = Discrimination(balance=balance, norm=norm, segments=1)

    choice = choose_discrimination_aware(model, [INNER], labelled(), keep=0.125, block=1, options=options)

    model.outer.weight.data.zero_()
    loss_of(model, reference, balance).backward()
    kernels = model.outer.weight.grad.flatten(2).norm(dim=2)  # type: ignore[union-attr]
    expected = kernels.sum(0) if norm == "l21" else kernels.norm(dim=0)
    assert choice["inner"].nonzero()[:, 0].tolist() == [int(expected.argmax())]


def test_norms_of_slices_of_a_flattened_group_take_all_their_columns() -> None:
    held = readers(Branches(), FLAT)
    gradient = normal(5, 16, seed=1)

    frobenius = slice_norms(held, [gradient], 4, "frobenius")
    l21 = slice_norms(held, [gradient], 4, "l21")

    slices = gradient.reshape(5, 4, 4).double()
    torch.testing.assert_close(frobenius, slices.square().sum((0, 2)).sqrt())
    torch.testing.assert_close(l21, slices.norm(dim=2).sum(0))


def test_channels_are_added_in_blocks_up_to_the_fraction_and_the_network_is_left_alone() -> None:
    model, groups = Branches(), [SECOND, INNER]
    before = copy.deepcopy(model.state_dict())
    keep = {"inner": 0.6, "second": 0.5}

    choice = choose_discrimination_aware(model, groups, labelled(), keep=keep, block=2)

    assert {name: int(kept.sum()) for name, kept in choice.items()} == {"inner": 5, "second": 5}
    again = choose_discrimination_aware(model, groups, labelled(), keep=keep, block=2)
    assert all(torch.equal(kept, again[name]) for name, kept in choice.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_adding_ends_early_once_the_loss_falls_too_little() -> None:
    counts = [
        int(
            choose_discrimination_aware(
                Branches(), [INNER], labelled(), keep=1.0, block=1, tolerance=tolerance, options=WHOLE
            )["inner"].sum()
        )
        for tolerance in (10.0, 0.02, 0.0)
    ]

    assert counts[0] == 1
    assert counts[0] <= counts[1] < counts[2] == 8


def test_units_that_must_stay_are_there_from_the_start() -> None:
    removable = torch.ones(8, dtype=torch.bool)
    removable[[2, 6]] = False
    fixed = type(INNER)(INNER.name, INNER.size, INNER.members, removable)

    choice = choose_discrimination_aware(Branches(), [fixed], labelled(), keep=0.25, options=WHOLE)

    assert choice["inner"].nonzero()[:, 0].tolist() == [2, 6]


def test_training_what_is_left_lowers_the_loss_and_moves_nothing_else() -> None:
    model, reference = Branches(), Branches()
    kept = torch.arange(8) < 5
    cut = copy.deepcopy(model)
    cut.outer.weight.data[:, ~kept] = 0

    retrain_(model, [INNER], {"inner": kept}, labelled(), options=WHOLE, epochs=3)

    assert not model.outer.weight[:, ~kept].any()
    with torch.no_grad():
        assert loss_of(model, reference, 1.0) < loss_of(cut, reference, 1.0)
    others = [name for name, value in model.state_dict().items() if name != "outer.weight"]
    assert all(torch.equal(model.state_dict()[name], reference.state_dict()[name]) for name in others)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_segments_end_behind_the_blocks_of_their_last_layers() -> None:
    resnet = ResNetCifar(3)
    layers = [f"layer{stage}.{block}.conv2" for stage in (1, 2, 3) for block in range(3)]

    assert ends_of(resnet, layers, 3) == ["layer1.2", "layer2.2"]
    assert ends_of(resnet, layers, 1) == []
    assert ends_of(Branches(), ["outer", "back"], 2) == ["outer"]


def test_heads_tell_classes_that_the_features_hold() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(200, 3))
    labels = [torch.arange(24) % 3 for _ in range(4)]
    inputs = [normal(24, 3, 9, 9, seed=at) for at in range(4)]
    for x, y in zip(inputs, labels, strict=True):
        x[torch.arange(24), y] += 1.5

    segments = learn_heads(model, ["0", "2"], list(zip(inputs, labels, strict=True)), ends=["0"], epochs=30)

    head = segments.heads["0"]
    assert isinstance(head, Head)
    assert not head.training
    with torch.no_grad():
        right = [(head(model[0](x)).argmax(1) == y).float() for x, y in zip(inputs, labels, strict=True)]
    assert float(torch.cat(right).mean()) > 0.9
    assert segments.end_of("0") == "0"
    assert segments.end_of("2") == ""


def test_options_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(OptionError, match="norm 'l2'"):
        Discrimination(norm="l2")
    with pytest.raises(OptionError, match="block: 0"):
        choose_discrimination_aware(Branches(), [INNER], labelled(), keep=0.5, block=0)
    with pytest.raises(OptionError, match="segments: 0"):
        choose_discrimination_aware(
            Branches(), [INNER], labelled(), keep=0.5, options=Discrimination(segments=0)
        )
