"""Budgets: exact counts, widths, rankings and bisection, against counts by hand."""

from __future__ import annotations

import pytest
import torch

from gossamer.errors import OptionError
from gossamer.pruning.budget import Shrinkage, Widths, by_rank, by_ratio, channels_per_unit, within
from gossamer.pruning.group import IN, OUT, WITH, Group, Member


def group(name: str, size: int, *, each: int = 1, fixed: tuple[int, ...] = ()) -> Group:
    units = torch.arange(size).repeat_interleave(each)
    members = (
        Member(f"{name}.weight", 0, units, OUT),
        Member(f"{name}.bias", 0, units, WITH),
        Member(f"{name}_next.weight", 1, units, IN),
    )
    removable = torch.ones(size, dtype=torch.bool)
    removable[list(fixed)] = False
    return Group(name, size, members, removable)


def kept(choice: dict[str, torch.Tensor], name: str) -> list[int]:
    return choice[name].nonzero().reshape(-1).tolist()


def test_a_ratio_removes_exactly_the_lowest_units_and_the_earlier_one_of_equals():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0, 1.0, 5.0])}

    choice = by_ratio([group("a", 5)], scores, 0.4, Widths())
    one = by_ratio([group("a", 5)], scores, 0.2, Widths())

    assert kept(choice, "a") == [0, 2, 4]
    assert kept(one, "a") == [0, 2, 3, 4]


def test_ratios_by_name_leave_other_groups_whole():
    scores = {"a": torch.arange(4.0), "b": torch.arange(4.0)}

    choice = by_ratio([group("a", 4), group("b", 4)], scores, {"b": 0.5}, Widths())

    assert kept(choice, "a") == [0, 1, 2, 3]
    assert kept(choice, "b") == [2, 3]


def test_units_that_must_stay_stay_whatever_they_score():
    choice = by_ratio([group("a", 4, fixed=(0, 1))], {"a": torch.arange(4.0)}, 0.25, Widths())

    assert kept(choice, "a") == [0, 1, 3]


def test_a_ranking_takes_the_lowest_units_of_all_groups_but_never_all_of_one():
    scores = {"a": torch.tensor([0.1, 0.2, 0.3]), "b": torch.tensor([1.0, 0.15, 2.0])}

    choice = by_rank([group("a", 3), group("b", 3)], scores, 4, Widths())

    assert kept(choice, "a") == [2]
    assert kept(choice, "b") == [0, 2]


def test_every_weight_keeps_units_of_its_own_even_where_these_score_lowest():
    first = Member(
        "first.weight", 0, torch.tensor([2, 0, 1]), OUT
    )  # has three of the eight units of the stream
    last = Member("last.weight", 0, torch.arange(8), OUT)
    stream = Group("first", 8, (first, last), torch.ones(8, dtype=torch.bool))

    choice = by_ratio([stream], {"first": torch.arange(8.0)}, 0.5, Widths(least=0.5))
    one = by_ratio([stream], {"first": torch.arange(8.0)}, 0.5, Widths())

    assert kept(choice, "first") == [1, 2, 4, 5, 6, 7]
    assert kept(one, "first") == [2, 5, 6, 7]


@pytest.mark.parametrize(
    ("each", "multiple", "expected"), [(1, 4, 8), (2, 4, 6), (4, 8, 6), (3, 8, 8), (1, 64, 10)]
)
def test_channel_counts_are_rounded_up_to_a_multiple(each, multiple, expected):
    one = group("a", 10, each=each)

    choice = by_ratio([one], {"a": torch.arange(10.0)}, 0.5, Widths(multiple=multiple))

    assert channels_per_unit(one) == each
    assert int(choice["a"].sum()) == expected


def test_the_best_of_the_dropped_units_come_back_for_a_multiple():
    scores = {"a": torch.tensor([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0])}

    choice = by_ratio([group("a", 8)], scores, 0.625, Widths(multiple=4))

    assert kept(choice, "a") == [0, 2, 4, 6]


def test_costs_in_weights_shrink_by_the_product_of_what_each_dimension_keeps():
    groups = [group("a", 4), group("a_next", 10)]
    shapes = {"a.weight": (4, 3, 3, 3), "a_next.weight": (10, 4, 3, 3)}
    cost = Shrinkage(groups, {"a.weight": 1080.0, "a_next.weight": 3600.0}, shapes, fixed=7.0)

    whole = cost({})
    choice = {"a": torch.tensor([1, 0, 1, 0]).bool(), "a_next": (torch.arange(10) < 7)}

    assert whole == 4687.0
    assert cost(choice) == pytest.approx(7 + 1080 * 2 / 4 + 3600 * 2 / 4 * 7 / 10)


def test_two_groups_in_one_dimension_add_what_they_remove():
    left = Group("l", 2, (Member("w", 1, torch.tensor([0, 1, -1, -1]), IN),), torch.ones(2, dtype=torch.bool))
    right = Group(
        "r", 2, (Member("w", 1, torch.tensor([-1, -1, 0, 1]), IN),), torch.ones(2, dtype=torch.bool)
    )

    cost = Shrinkage([left, right], {"w": 40.0}, {"w": (10, 4)})

    assert cost({"l": torch.tensor([True, False]), "r": torch.tensor([False, False])}) == 10.0


def test_bisection_finds_the_mildest_choice_within_the_limit():
    groups = [group("a", 16), group("b", 8)]
    scores = {"a": torch.rand(16, generator=torch.Generator().manual_seed(0)), "b": torch.linspace(0, 1, 8)}
    shapes = {"a.weight": (16, 4), "b.weight": (8, 4)}
    cost = Shrinkage(groups, {"a.weight": 64.0, "b.weight": 32.0}, shapes)

    def choices(count: int) -> dict[str, torch.Tensor]:
        return by_rank(groups, scores, count, Widths())

    found = within(choices, 24, cost, 50.0)
    by_hand = next(choices(k) for k in range(25) if cost(choices(k)) <= 50.0)

    assert {n: m.tolist() for n, m in found.items()} == {n: m.tolist() for n, m in by_hand.items()}


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(OptionError, match="fraction of channels removed"):
        by_ratio([group("a", 4)], {"a": torch.arange(4.0)}, ratio, Widths())


def test_a_limit_that_no_choice_meets_is_an_error_with_the_least_possible():
    groups, scores = [group("a", 4)], {"a": torch.arange(4.0)}
    cost = Shrinkage(groups, {"a.weight": 100.0}, {"a.weight": (4, 25)})

    with pytest.raises(OptionError, match="limit of 10: 25 is the least"):
        within(lambda count: by_rank(groups, scores, count, Widths()), 4, cost, 10.0)


@pytest.mark.parametrize(
    "scores", [{}, {"a": torch.arange(3.0)}, {"a": torch.tensor([1.0, float("nan"), 2.0, 3.0])}]
)
def test_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(OptionError, match="one finite score for each of its 4 units"):
        by_ratio([group("a", 4)], scores, 0.5, Widths())


def test_a_group_keeps_the_least_fraction_whatever_is_asked():
    choice = by_ratio([group("a", 9)], {"a": torch.arange(9.0)}, 0.8, Widths(least=0.5))

    assert kept(choice, "a") == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("options", [{"least": -0.1}, {"least": 2}, {"multiple": 0}, {"multiple": 2.5}])
def test_widths_that_cannot_be_are_refused(options):
    with pytest.raises(OptionError, match="received"):
        Widths(**options)
