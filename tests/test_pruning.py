"""Selection is exact, schedules end where they should, and a scan leaves the model as it was."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.data import load_data
from gossamer.errors import OptionError
from gossamer.models import load_model
from gossamer.pruning import CRITERIA, by_fraction, by_quality, densities_for, globally, scan, sparsities
from gossamer.training import evaluate


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=60), st.integers(0, 99))
def test_fraction_drops_exactly_the_floor_of_the_count_even_with_ties(
    values: list[float], percent: int
) -> None:
    scores = torch.tensor(values)

    mask = by_fraction(scores, percent / 100)

    dropped = int((~mask).sum())
    assert dropped == percent * len(values) // 100
    if dropped:
        assert scores[~mask].max() <= scores[mask].min()


def test_ties_are_broken_by_position() -> None:
    assert by_fraction(torch.ones(4), 0.5).tolist() == [False, False, True, True]


def test_quality_uses_the_standard_deviation_of_the_survivors_only() -> None:
    alive = torch.tensor([1.0, -1.0, 3.0, -3.0])
    weight = torch.cat([torch.zeros(96), alive])  # zeros would shrink the threshold

    mask = by_quality(weight, 0.5)

    assert math.isclose(float(alive.std(correction=0)), math.sqrt(5), rel_tol=1e-6)
    assert mask[-4:].tolist() == [False, False, True, True]  # 1 < 0.5 * 2.236 < 3


def test_a_global_ranking_equals_one_sort_over_all_layers() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.rand(7, 9, generator=generator), "b": torch.rand(40, generator=generator) * 3}

    masks = globally(scores, 0.6)

    together = torch.cat([s.flatten() for s in scores.values()])
    threshold = together.sort().values[math.floor(0.6 * together.numel())]
    assert torch.equal(torch.cat([m.flatten() for m in masks.values()]), together >= threshold)


def test_a_global_ranking_never_empties_a_layer() -> None:
    masks = globally({"weak": torch.full((10,), 0.001), "strong": torch.ones(90)}, 0.5)

    assert int(masks["weak"].sum()) == 1
    assert sum(int(m.sum()) for m in masks.values()) == 50


def test_layer_adaptive_scores_follow_the_formula() -> None:
    weight = torch.tensor([3.0, -1.0, 2.0])

    scores = CRITERIA["layer-adaptive"](weight)

    assert scores.tolist() == pytest.approx([9 / 9, 1 / (1 + 4 + 9), 4 / (4 + 9)])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_pruned_weights_score_lowest(criterion: str) -> None:
    weight = torch.tensor([0.0, 0.2, -0.1, 0.0])

    scores = CRITERIA[criterion](weight)

    assert (scores[[0, 3]] == 0).all()
    assert (scores[[1, 2]] > 0).all()


@pytest.mark.parametrize("schedule", ["one-shot", "iterative", "cubic"])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_a_schedule_never_falls_and_ends_at_its_target(schedule: str, rounds: int) -> None:
    values = sparsities(schedule, 0.92, rounds)

    assert len(values) == rounds
    assert values == sorted(values)
    assert values[-1] == 0.92


def test_iterative_pruning_keeps_the_same_share_in_every_round() -> None:
    kept = [1 - s for s in sparsities("iterative", 1 - 0.8**4, 4)]

    assert kept == pytest.approx([0.8, 0.64, 0.512, 0.4096])  # 20 % of the survivors a round


def test_cubic_schedule_follows_zhu_and_gupta() -> None:
    assert sparsities("cubic", 0.8, 4)[:3] == pytest.approx([0.8 - 0.8 * (1 - t / 4) ** 3 for t in (1, 2, 3)])


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan")])
def test_an_impossible_sparsity_is_refused(sparsity: float) -> None:
    with pytest.raises(OptionError, match="fraction of zeros"):
        by_fraction(torch.ones(3), sparsity)


def test_a_sensitivity_scan_measures_each_layer_alone_and_restores_it() -> None:
    model, data = load_model("lenet300", "lenet300_100_mnist"), load_data("mnist")
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    before = {n: p.clone() for n, p in weights.items()}
    few = data.validation.subset(1000)

    def figure(m: nn.Module) -> float:
        return evaluate(m, few, data.preprocess).accuracy

    table = scan(model, weights, figure, densities=(1.0, 0.3, 0.01))

    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    for curve in table.values():
        assert curve[1.0] == pytest.approx(figure(model))
        assert curve[0.01] < curve[1.0]
    chosen = densities_for(table, max_drop=0.02)
    assert all(table[n][d] >= max(table[n].values()) - 0.02 for n, d in chosen.items())
