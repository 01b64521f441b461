"""TrainSparse: penalties through a recipe's step, and PruneChannels taking out what they made zero."""

from __future__ import annotations

import copy

import pytest
import torch

from gossamer.data import load_data
from gossamer.errors import OptionError, StepError
from gossamer.methods.structured_sparsity import zero_groups
from gossamer.models import load_model
from gossamer.steps import Context, PruneChannels, TrainSparse

EXAMPLE = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def trained(digits, **options):
    model = load_model("lenet300", seed=0)
    step = TrainSparse(epochs=2, lr=0.05, teacher=None, **options)
    return step.apply(model, Context(data=digits, example=EXAMPLE))


def test_zero_neurons_are_removed_and_no_logit_changes(digits):
    model = trained(digits, penalty="less-is-more", strength={"group": 0.03})
    zero = {name: int((getattr(model, name).weight == 0).all(dim=1).sum()) for name in ("fc1", "fc2")}
    before = copy.deepcopy(model)

    smaller = PruneChannels(threshold=0, criterion="l2", min_width=0).apply(model, Context(example=EXAMPLE))

    assert zero["fc1"] > 10
    assert smaller.fc1.out_features == 300 - zero["fc1"]
    assert smaller.fc2.out_features == 100 - zero["fc2"]
    assert torch.allclose(smaller(EXAMPLE), before(EXAMPLE), atol=1e-5)


def test_a_stronger_penalty_leaves_fewer_columns(digits):
    counts = [
        int(
            zero_groups(
                trained(
                    digits, penalty="structured-sparsity", strength={"shapes": s}, layers=["fc1"]
                ).fc1.weight
            )["shapes"].sum()
        )
        for s in (0.003, 0.03)
    ]

    assert counts[0] < counts[1]


def test_nothing_at_the_threshold_is_an_error_that_says_what_is_lowest(digits):
    with pytest.raises(StepError, match=r"no unit scores 0 or less under 'l2'; the lowest has 0\.\d+"):
        PruneChannels(threshold=0, criterion="l2").apply(
            load_model("lenet300", seed=0), Context(example=EXAMPLE)
        )


def test_a_trial_on_one_batch_goes_through_although_nothing_is_zero_yet():
    model = load_model("lenet300", seed=0)

    smaller = PruneChannels(threshold=0, criterion="l2").apply(model, Context(example=EXAMPLE, trial=True))

    assert smaller.fc1.out_features + smaller.fc2.out_features == 399


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainSparse(penalty="group-lasso"), "unknown penalty"),
        (lambda: TrainSparse(strength={"lambda": 1}), "no option 'lambda'"),
        (lambda: TrainSparse(strength={"penalty": -1}), "positive number"),
        (lambda: TrainSparse(penalty="less-is-more"), "one of them positive"),
        (lambda: TrainSparse(optimizer="adam"), "needs optimizer 'sgd'"),
        (lambda: PruneChannels(threshold=-1.0), "at least 0"),
        (lambda: PruneChannels(threshold=0.0, criterion="thinet"), "gives scores"),
    ],
)
def test_wrong_options_say_what_is_expected(make, message):
    with pytest.raises(OptionError, match=message):
        make()
