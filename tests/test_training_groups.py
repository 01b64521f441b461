"""Steps, intervals and clips learn at their own rate, and weight decay leaves them alone where a paper says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gossamer import formats, methods, quantizers
from gossamer.formats import Sparse, Uniform
from gossamer.formats.base import WeightFormat
from gossamer.quantizers import Clipped, LearnedInterval, LearnedStep
from gossamer.training import Callback, Checkpoint, fit
from gossamer.training.groups import groups
from training_halves import data


def network(format: WeightFormat, quantizer: quantizers.Quantizer) -> nn.Sequential:
    """A convolution in a format, a quantizer that has seen values, a linear layer; for the data of training_halves."""
    generator = torch.Generator().manual_seed(0)
    shape = data().train.inputs.shape[1:]
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), nn.ReLU(), quantizer, nn.Linear(8, 3)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    formats.attach(model[1], "weight", format)
    quantizer.state = "observe"
    model(torch.rand(16, *shape, generator=generator))
    quantizer.settle()
    return model


def by_name(model: nn.Module, lr: float) -> dict[str, tuple[float, bool]]:
    """(rate, decay) of every parameter, read from the groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    made = groups(model, list(model.parameters()), lr)
    return {
        names[id(p)]: (group.get("lr", lr), "weight_decay" not in group)
        for group in made
        for p in group["params"]
    }


def test_weights_decay_and_what_is_no_weight_does_not() -> None:
    found = by_name(network(methods.QIL(bits=3, rescale=True), LearnedInterval(bits=3, rescale=True)), lr=0.1)

    weight = "1.parametrizations.weight.original"
    slow = pytest.approx(0.001)
    assert found == {
        f"{weight}0": (0.1, True),
        f"{weight}1": (slow, False),
        f"{weight}2": (slow, False),
        f"{weight}3": (slow, False),
        "1.bias": (0.1, True),
        "3.center": (slow, False),
        "3.half_width": (slow, False),
        "4.weight": (0.1, True),
        "4.bias": (0.1, True),
    }


def test_a_step_learns_at_full_rate_and_only_the_clip_of_pact_decays() -> None:
    steps = by_name(network(Sparse(values=methods.LSQ(bits=4)), LearnedStep(bits=4)), lr=0.1)
    clips = by_name(network(Uniform(bits=4), Clipped(bits=4)), lr=0.1)

    assert steps["1.parametrizations.weight.original1"] == (0.1, False)
    assert steps["3.step"] == (0.1, False)
    assert clips["3.reach"] == (0.1, True)


def test_a_network_without_formats_has_one_group_in_its_own_order() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    [group] = groups(model, list(model.parameters()), 0.1)

    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
    assert set(group) == {"params"}


def test_groups_that_are_given_stay_as_they_are() -> None:
    model = network(methods.LSQ(bits=4), LearnedStep(bits=4))
    own = {"params": [model[4].weight], "lr": 0.5}

    made = groups(model, [own, model[3].step, model[1].bias], 0.1)

    assert made[0] is own
    assert [group.get("weight_decay") for group in made[1:]] == [None, 0.0]


@pytest.mark.parametrize(
    ("make", "decayed"),
    [(lambda: LearnedInterval(bits=3, rescale=True), False), (lambda: Clipped(bits=3), True)],
    ids=["QIL", "PACT"],
)
def test_one_step_of_descent_equals_the_formula(
    make: Callable[[], quantizers.Quantizer], decayed: bool
) -> None:
    """A part of an interval moves by -rate lr gradient; a weight, and the clip of PACT, by -lr (gradient + decay w)."""
    model = network(methods.QIL(bits=3, rescale=True), make())
    before = copy.deepcopy(model)
    gradients: dict[str, torch.Tensor] = {}

    class Watch(Callback):
        def on_step_end(self, model, optimizer):
            gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})

    options = {"momentum": 0, "weight_decay": 0.05, "batch_size": 8, "max_batches": 1}
    fit(model, data(), epochs=1, lr=0.1, **options, callbacks=[Watch()])

    old = dict(before.named_parameters())
    assert decayed == ("3.reach" in old)
    for name, parameter in model.named_parameters():
        interval = name.rpartition(".")[2] in ("center", "half_width", "original1", "original2", "original3")
        step = 0.001 * gradients[name] if interval else 0.1 * (gradients[name] + 0.05 * old[name])
        torch.testing.assert_close(parameter, old[name] - step)


def test_a_resumed_run_of_many_groups_ends_with_the_same_bits(tmp_path) -> None:
    class Stop(Callback):
        def on_epoch_start(self, epoch, model):
            if epoch == 2:
                raise KeyboardInterrupt

    def fresh() -> nn.Sequential:
        return network(methods.QIL(bits=3, rescale=True), LearnedInterval(bits=3, rescale=True))

    options = {
        "epochs": 4,
        "lr": 0.05,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "batch_size": 16,
        "seed": 3,
    }
    whole = fresh()
    fit(whole, data(), **options, callbacks=[Callback()])
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), data(), **options, callbacks=[Stop()], checkpoint=Checkpoint(tmp_path))
    resumed = fresh()

    fit(resumed, data(), **options, callbacks=[Callback()], checkpoint=Checkpoint(tmp_path))

    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@dataclass(frozen=True, kw_only=True)
class Pair(WeightFormat):
    """Two formats side by side, as a sum of two grids has them."""

    own_parts: ClassVar[tuple[str, ...]] = ("codes", "offset")
    fixed_parts: ClassVar[tuple[str, ...]] = ("offset",)

    first: WeightFormat
    second: WeightFormat


def test_a_fixed_part_does_not_fix_its_namesake_in_another_format() -> None:
    pair = Pair(first=methods.LSQ(bits=4), second=Uniform(bits=4))
    codes, part = torch.zeros(3, dtype=torch.uint8), torch.zeros(3)

    trained = dict(zip(pair.part_names(), pair.trained(codes, part, part, part, part, part), strict=True))
    learning = dict(zip(pair.part_names(), pair.all_learning(), strict=True))

    assert [name for name, flag in trained.items() if flag] == [
        "first.latent",
        "first.scale",
        "second.latent",
    ]
    assert [name for name, kind in learning.items() if not kind.decay] == ["first.scale"]
