"""One loop: it learns, it is deterministic, and it says what went wrong."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from gossamer.data import Preprocess, Split, load_data
from gossamer.data.custom import as_data
from gossamer.errors import DataError, ModelError, OptionError, TrainingError
from gossamer.models import load_model
from gossamer.training import Callback, evaluate, fit, recalibrate_norms
from gossamer.training.layout import Layout


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other on a busy machine are many times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits():
    data = load_data("digits")
    return dataclasses.replace(data, train=data.train.subset(1000), validation=data.validation.subset(300))


def two_moons(count=96):
    """A task of four numbers and two classes that trains in milliseconds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    return as_data({"train": (x, y), "validation": (x[:40], y[:40]), "test": (x, y)}, name="moons")


def small(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2)
    )


def weights(model):
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def test_a_network_learns_real_digits(digits):
    model = load_model("lenet300")

    history = fit(model, digits, epochs=3, lr=0.05, batch_size=50)

    assert [epoch.number for epoch in history.epochs] == [1, 2, 3]
    assert history.epochs[0].train_loss > history.last.train_loss
    assert history.last.validation_accuracy > 0.8
    assert not model.training


def test_plain_gradient_descent_equals_the_formula():
    data, model = two_moons(), small(dropout=0.0)
    reference = small(dropout=0.0)
    rate, momentum, decay = 0.1, 0.9, 0.01

    fit(model, data, epochs=2, lr=rate, momentum=momentum, weight_decay=decay, batch_size=40, seed=7)

    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for epoch in range(2):
        order = np.random.default_rng([7, epoch, 0]).permutation(96)
        for start in (0, 40, 80):
            x, y = data.train.take(order[start : start + 40])
            reference.train()
            loss = F.cross_entropy(reference(torch.from_numpy(x)), torch.from_numpy(y))
            gradients = torch.autograd.grad(loss, list(reference.parameters()))
            with torch.no_grad():
                for p, g, v in zip(reference.parameters(), gradients, velocity, strict=True):
                    v.mul_(momentum).add_(g + decay * p)
                    p -= rate * v
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    results = []
    for seed in (1, 1, 2):
        model = small()
        fit(model, two_moons(), epochs=2, lr=0.1, batch_size=16, seed=seed)
        results.append(weights(model))

    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


def test_the_callers_random_states_are_left_alone():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    model, data = small(), two_moons()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002

    fit(model, data, epochs=1, lr=0.1)

    assert (torch.rand(2) == expected[0]).all()
    assert (np.random.rand(2) == expected[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", lambda p: torch.optim.RMSprop(p, lr=0.01)])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_every_optimizer_and_schedule_lowers_the_loss(optimizer, schedule):
    history = fit(
        small(dropout=0.0),
        two_moons(),
        epochs=8,
        lr=0.02,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=8,
    )

    assert history.last.train_loss < 0.8 * history.epochs[0].train_loss


def test_groups_keep_their_own_rates_under_the_schedule():
    model, seen = small(), []

    class Watch(Callback):
        def on_step_end(self, model, optimizer):
            seen.append([group["lr"] for group in optimizer.param_groups])

    groups = [{"params": [model[0].weight]}, {"params": [model[4].weight], "lr": 0.5}]
    before = model[1].weight.clone()
    fit(
        model,
        two_moons(),
        epochs=2,
        lr=0.1,
        batch_size=48,
        schedule="cosine",
        parameters=groups,
        callbacks=[Watch()],
    )

    factors = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    np.testing.assert_allclose(seen, [[0.1 * f, 0.5 * f] for f in factors])
    assert (model[1].weight == before).all()


def test_frozen_parameters_are_not_trained():
    model = small()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()

    fit(model, two_moons(), epochs=1, lr=0.1)

    assert (model[0].weight == before).all()


def test_gradients_are_clipped_to_the_given_norm():
    model = nn.Linear(4, 2)
    before = weights(model)

    fit(model, two_moons(), epochs=1, lr=1.0, momentum=0.0, batch_size=96, max_grad_norm=1e-3)

    assert (weights(model) - before).norm() == pytest.approx(1e-3, rel=1e-3)


def test_a_dry_run_takes_so_many_batches():
    steps = []

    class Count(Callback):
        def on_step_end(self, model, optimizer):
            steps.append(1)

    fit(small(), two_moons(), epochs=2, lr=0.1, batch_size=8, max_batches=3, callbacks=[Count()])

    assert len(steps) == 6


def test_early_stopping_puts_the_best_weights_back():
    data = two_moons()

    class Spoil(Callback):
        def on_epoch_start(self, epoch, model):
            if epoch >= 3:  # what follows can only be worse than chance
                model[4].weight.data.neg_()

    model = small(dropout=0.0)
    history = fit(model, data, epochs=50, lr=0.05, batch_size=8, early_stop=2, callbacks=[Spoil()])

    best = history.best
    assert len(history.epochs) == best.number + 2
    assert evaluate(model, data.validation, data.preprocess).accuracy == best.validation_accuracy


def test_a_callback_can_end_the_run():
    class Stop(Callback):
        def on_epoch_end(self, epoch, model, history):
            return history.last.number == 2

    assert len(fit(small(), two_moons(), epochs=9, lr=0.1, callbacks=[Stop()]).epochs) == 2


def test_a_loss_of_ones_own_sees_outputs_labels_inputs_and_model():
    seen = {}

    def loss(outputs, labels, inputs, model):
        seen.update(outputs=outputs.shape, labels=labels.dtype, inputs=inputs.shape, model=type(model))
        return F.cross_entropy(outputs, labels) + 0.1 * model[0].weight.square().sum()

    fit(small(), two_moons(), epochs=1, lr=0.1, batch_size=32, loss=loss)

    expected = {"outputs": (32, 2), "labels": torch.int64, "inputs": (32, 4), "model": nn.Sequential}
    assert seen == expected


def test_label_smoothing_is_that_of_cross_entropy():
    model, data = nn.Linear(4, 2), two_moons()
    x, y = (torch.from_numpy(array) for array in data.train.take(slice(None)))
    expected = F.cross_entropy(model(x), y, label_smoothing=0.3).item()

    history = fit(model, data, epochs=1, lr=1e-9, batch_size=96, label_smoothing=0.3)

    assert history.last.train_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_trains_and_leaves_the_model_as_it_was(precision):
    model = small()

    fit(model, two_moons(), epochs=2, lr=0.1, mixed_precision=precision, device="cpu")
    history = fit(model, two_moons(), epochs=1, lr=0.1)

    assert math.isfinite(history.last.train_loss)
    assert model[0].weight.dtype == torch.float32
    assert model(torch.zeros(1, 4)).dtype == torch.float32


def test_a_loss_that_is_not_finite_names_epoch_step_and_rate():
    with pytest.raises(
        TrainingError, match=r"epoch 1, step \d+ of 12: the loss is (nan|inf).*rate 1e\+30.*Lower lr"
    ):
        fit(small(), two_moons(), epochs=2, lr=1e30, batch_size=8)


def test_a_weight_that_is_not_finite_is_named():
    class Poison(Callback):
        def on_step_end(self, model, optimizer):
            model[4].bias.data[0] = math.nan

    with pytest.raises(TrainingError, match=r"4\.bias holds NaN or infinity after epoch 1"):
        fit(small(), two_moons(), epochs=1, lr=0.1, batch_size=96, callbacks=[Poison()])


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = nn.Linear(4, 2), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda y: {"logits": y},
            r"Returns: returned dict with keys \['logits'\], expected one tensor of logits",
        ),
        (lambda y: (y, y), "returned tuple, expected one tensor"),
        (lambda y: y[:, :, None], r"returned shape \(32, 2, 1\), expected logits \[32, classes\]"),
        (lambda y: y.flatten(), r"returned shape \(64,\)"),
    ],
)
def test_a_model_that_returns_something_else_is_told_so(wrap, message):
    with pytest.raises(ModelError, match=message):
        fit(Returns(wrap), two_moons(), epochs=1, lr=0.1, batch_size=32)
    with pytest.raises(ModelError, match="returned"):
        evaluate(Returns(wrap), two_moons().test, Preprocess())


def test_labels_without_an_output_are_found_before_the_first_step(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 9))
    before = weights(model)

    with pytest.raises(
        DataError, match="digits train: labels go from 0 to 9, expected 0 to 8 because Sequential has 9"
    ):
        fit(model, digits, epochs=1, lr=0.1)

    assert (weights(model) == before).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"lr": 0.0}, "lr is 0.0, expected a positive"),
        ({"lr": math.nan}, "lr is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg'. Did you mean 'sgd'"),
        ({"schedule": "cosin"}, "schedule: unknown name 'cosin'. Did you mean 'cosine'"),
        ({"augment": "shfit"}, "augment: unknown name 'shfit'. Did you mean 'shift'"),
        ({"early_stop": 0}, "early_stop is 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0"),
        ({"mixed_precision": "half"}, "mixed_precision is 'half'"),
        ({"parameters": []}, "no parameter is left to train"),
        ({"loss": lambda *_: 3}, "the loss returned int"),
        ({"loss": lambda outputs, *_: outputs}, r"the loss returned shape \(96, 2\)"),
    ],
)
def test_a_wrong_option_is_said_before_any_work(option, message):
    with pytest.raises(OptionError, match=message):
        fit(small(), two_moons(), **{"epochs": 1, "lr": 0.1, **option})


def test_an_empty_split_is_an_error():
    data = two_moons()
    empty = Split(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), "train")

    with pytest.raises(DataError, match="train split is empty"):
        fit(small(), dataclasses.replace(data, train=empty), epochs=1, lr=0.1)
    with pytest.raises(DataError, match="the split is empty"):
        evaluate(small(), empty, Preprocess())


def test_evaluation_leaves_every_mode_as_it_was():
    model = small().train()
    model[1].eval()

    evaluate(model, two_moons().test, Preprocess())

    assert [module.training for module in model] == [True, False, True, True, True]


def test_evaluation_rebuilds_a_parametrized_weight_once():
    calls = []

    class Count(nn.Module):
        def forward(self, weight):
            calls.append(1)
            return weight

    model = nn.Linear(4, 2)
    parametrize.register_parametrization(model, "weight", Count())
    calls.clear()

    evaluate(model, two_moons().test, Preprocess(), batch_size=10)

    assert len(calls) == 1


def test_recalibration_gives_batch_norm_the_statistics_of_the_data():
    data, model = two_moons(), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[0].running_mean.fill_(100)

    count = recalibrate_norms(model, data, batches=6, batch_size=16)

    x = data.train.take(slice(None))[0]
    parts = x[np.random.default_rng([0, 1]).permutation(96)].reshape(6, 16, 4)
    assert count == 1
    np.testing.assert_allclose(model[0].running_mean, x.mean(0), atol=1e-5)
    np.testing.assert_allclose(model[0].running_var, parts.var(1, ddof=1).mean(0), rtol=1e-4)
    assert model[0].momentum == 0.1
    assert recalibrate_norms(nn.Linear(4, 2), data) == 0


class Viewing(nn.Module):
    """A network as many are written: `.view` on a feature map, which the channels-last order refuses."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 5, stride=4), nn.Linear(4 * 36, 10)

    def forward(self, x):
        y = self.conv(x)
        return self.fc(y.view(y.shape[0], -1))


def test_a_network_that_views_its_feature_maps_trains_in_the_usual_order(digits):
    model = Viewing()

    history = fit(model, digits, epochs=1, lr=0.05)

    assert history.last.validation_accuracy == evaluate(model, digits.validation, digits.preprocess).accuracy


def test_both_orders_of_the_channels_hold_the_same_values():
    x = torch.rand(3, 1, 4, 5)

    for picture in (x, torch.rand(3, 2, 4, 5)):
        assert (Layout()(picture) == picture).all()
        assert Layout()(picture).stride(1) == 1
        assert Layout(channels_last=False)(picture).is_contiguous()
    assert Layout()(x.flatten(1)).is_contiguous()
    assert not Layout().refused(RuntimeError("another problem"))
