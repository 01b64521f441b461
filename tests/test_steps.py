"""Steps: what each one does to a model, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from gossamer import formats, steps
from gossamer.data import Data, load_data
from gossamer.errors import DataError, FormatError, OptionError, StepError
from gossamer.formats import Codebook, Sparse, Uniform
from gossamer.models import load_model
from gossamer.steps import Context, Finetune, FreezeNorms, Prune, Quantize, Round, Share, Train, apply
from gossamer.training import evaluate


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 28 * 28, 10),
    ).eval()


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in formats.state(model)[0].items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_prune_share_and_finetune_compose_and_stay_where_they_were(digits: Data) -> None:
    model = load_model("lenet300", seed=0)
    apply(model, [Train(epochs=1, lr=2e-3)], digits)
    apply(model, [Prune(density=0.1), Share(bits=3), Finetune(epochs=3, lr=3e-3, batch_size=32)], digits)

    found = formats.attached(model)

    assert {n: type(a.format) for n, a in found.items()} == dict.fromkeys(
        ["fc1.weight", "fc2.weight", "fc3.weight"], Sparse
    )
    for name, entry in found.items():
        weight = formats.plain_parameters(model)[name]
        assert int((weight != 0).sum()) == weight.numel() - weight.numel() * 9 // 10
        assert weight[weight != 0].unique().numel() <= 8
        assert isinstance(entry.format.values, Codebook)
    assert evaluate(model, digits.test, digits.preprocess).accuracy > 0.7


def test_soft_targets_come_from_the_network_as_it_was(digits: Data) -> None:
    model = load_model("lenet300", seed=0)
    apply(model, [Train(epochs=1, lr=2e-3)], digits)
    before = evaluate(model, digits.test, digits.preprocess).accuracy
    taught, untaught = copy.deepcopy(model), copy.deepcopy(model)

    apply(taught, [Prune(density=0.1), Finetune(epochs=3, lr=3e-3, batch_size=32, weight=1.0)], digits)
    apply(untaught, [Prune(density=0.1)], digits)

    recovered = evaluate(taught, digits.test, digits.preprocess).accuracy
    assert recovered > evaluate(untaught, digits.test, digits.preprocess).accuracy
    assert recovered > before - 0.1  # by the teacher's outputs alone, no label


def test_apply_changes_the_given_model_and_returns_it() -> None:
    model = small()

    result = apply(model, [Prune(density={"0": 0.5, "4": 0.1})])

    assert result is model
    assert set(formats.attached(model)) == {"0.weight", "4.weight"}


@pytest.mark.parametrize(
    "listed",
    [
        [Prune(density=0.5), Share(bits=2), Prune(density=0.1)],
        [Prune(density=0.5), Share(bits=12, layers=["0"]), Share(bits=2, layers=["nothing"])],
        [Prune(density=0.5), Finetune(epochs=1)],
    ],
)
def test_a_failing_step_leaves_the_model_exactly_as_it_was(listed: list[steps.Step]) -> None:
    model = small()
    before, output = tensors(model), model(torch.ones(1, 1, 28, 28))

    with pytest.raises((StepError, OptionError), match=r"step [23]"):
        apply(model, listed)

    assert same(tensors(model), before)
    assert torch.equal(model(torch.ones(1, 1, 28, 28)), output)
    assert not formats.attached(model)


def test_a_layer_that_matches_nothing_is_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"step 1 \(Prune\): .*'fc9'.*Did you mean 'fc[123]'"):
        apply(load_model("lenet300"), [Prune(density=0.5, layers=["fc9"])])


def test_a_step_that_touches_nothing_is_an_error() -> None:
    model = load_model("lenet300")
    for step in (
        Prune(quality=0.0),
        Prune(sparsity=0.0),
        FreezeNorms(),
        Share(bits=2, layers=["fc3"], skip=["fc3"]),
    ):
        with pytest.raises(StepError, match=r"touched nothing|found no|found nothing|Drop the step"):
            apply(model, [step])


def test_skipped_layers_are_listed_with_the_reason() -> None:
    context = Context()

    Share(bits=8).apply(load_model("lenet5"), context)

    assert context.skipped == []
    Prune(density={"fc1": 0.1, "fc2": 0.1}, skip=["fc2"]).apply(load_model("lenet300"), context)
    reasons = {entry["name"]: entry["reason"] for entry in context.skipped}
    assert reasons == {
        "fc2.weight": "left out by the recipe",
        "fc3.weight": "no sparsity given for this layer",
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: Prune(), "exactly one of"),
        (lambda: Prune(sparsity=1.0), "0 <= sparsity < 1"),
        (lambda: Prune(density={"a": 0.0}), "0 < density <= 1"),
        (lambda: Prune(density=0.5, scope="model"), "'layer' or 'global'"),
        (lambda: Prune(density={"a": 0.5}, scope="global"), "one number"),
        (lambda: Prune(density=0.5, criterion="magnitud"), "Did you mean 'magnitude'"),
        (lambda: Prune(density=0.5, rounds_schedule="cubik"), "Did you mean 'cubic'"),
        (lambda: Share(bits=0), "1 to 12"),
        (lambda: Quantize(), "one of bits, step, rate"),
        (lambda: Quantize(rate=4.0, step=0.1), "without step"),
        (lambda: Quantize(rate=-1.0), "coded bits per weight"),
        (lambda: Round(dtype="float15"), "Did you mean 'float16'"),
        (lambda: Train(lr=0.0), "lr must be positive"),
        (lambda: Finetune(teacher="someone"), "'original' or null"),
    ],
)
def test_a_wrong_option_says_what_it_wants(wrong: object, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        wrong()  # type: ignore[operator]


def test_pruning_after_sharing_is_refused() -> None:
    with pytest.raises(StepError, match=r"step 2 \(Prune\).*already has the format"):
        apply(load_model("lenet300"), [Share(bits=4), Prune(density=0.5)])


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = load_model("lenet300")
    with torch.no_grad():
        model.fc2.weight[3, 3] = float("nan")

    with pytest.raises(FormatError, match=r"step 1.*1 of 30000 weights are NaN"):
        apply(model, [Share(bits=4)])


def test_training_needs_data_and_says_so() -> None:
    with pytest.raises(StepError, match="needs data"):
        apply(small(), [Train(epochs=1)])


def test_labels_beyond_the_outputs_are_found_before_training(digits: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))

    with pytest.raises(DataError, match="label"):
        apply(model, [Train(epochs=1)], digits)


@pytest.mark.parametrize("rounds_schedule", ["one-shot", "iterative", "cubic"])
def test_rounds_end_at_the_exact_density(rounds_schedule: str, digits: Data) -> None:
    model = load_model("lenet300", seed=0)

    apply(model, [Prune(density=0.2, rounds=3, rounds_schedule=rounds_schedule)], digits)

    for weight in (model.fc1.weight, model.fc2.weight, model.fc3.weight):
        assert int((weight == 0).sum()) == weight.numel() * 8 // 10


def test_frozen_norms_keep_the_function_and_fold_where_they_can() -> None:
    model, x = load_model("resnet20", "resnet20_cifar10"), torch.randn(4, 3, 32, 32)
    before, parameters = model(x), sum(p.numel() for p in model.parameters())
    context = Context(example=x)

    frozen = FreezeNorms().apply(copy.deepcopy(model), context)

    assert (frozen(x) - before).abs().max() < 1e-4
    assert [e["layer"] is not None for e in context.edits] == [True] * 19
    assert (
        sum(p.numel() for p in frozen.parameters()) == parameters - 688
    )  # gamma goes, beta becomes the bias
    rebuilt = FreezeNorms().rebuild(copy.deepcopy(model), context.edits)
    rebuilt.load_state_dict(frozen.state_dict())
    assert torch.equal(rebuilt(x), frozen(x))


def test_norms_behind_shared_weights_become_scale_and_shift() -> None:
    model, x = small(), torch.randn(2, 1, 28, 28)
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 2)
    apply(model, [Share(bits=3)])
    before = model(x)

    apply(model, [FreezeNorms()], example=x)

    assert type(model[1]).__name__ == "Affine"
    assert (model(x) - before).abs().max() < 1e-5


def test_rounding_makes_the_model_equal_to_its_file() -> None:
    model = load_model("lenet300")

    apply(model, [Prune(density=0.1), Round(dtype="bfloat16")])

    assert set(formats.attached(model)) == {f"fc{i}.{n}" for i in (1, 2, 3) for n in ("weight", "bias")}
    assert torch.equal(model.fc1.bias, model.fc1.bias.bfloat16().float())


def test_quantizing_by_rate_meets_its_budget_and_beats_rounding_to_nearest() -> None:
    data, model = load_data("mnist"), load_model("lenet5", "lenet5_caffe_mnist")
    dense = {n: p.detach().clone() for n, p in model.named_parameters() if p.dim() > 1}

    context = Context(data=data, seed=0)
    Quantize(rate=1.5, calibration=256).apply(model, context)

    bits = weights = 0.0
    for name, entry in formats.attached(model).items():
        assert isinstance(entry.format, Uniform)
        codes = entry.format.codes(*formats.parts_of(model, name)).numpy()
        _, counts = np.unique(codes, return_counts=True)
        bits += float(-(counts * np.log2(counts / counts.sum())).sum())
        weights += codes.size
    assert bits / weights < 1.6
    nearest = load_model("lenet5", "lenet5_caffe_mnist")
    for name, step in context.notes["steps"].items():
        nearest.get_parameter(name).data = (dense[name] / step).round() * step
    few = data.test.subset(2000)
    ours = evaluate(model, few, data.preprocess)
    theirs = evaluate(nearest, few, data.preprocess)
    assert ours.loss < theirs.loss
    assert ours.accuracy > 0.96
