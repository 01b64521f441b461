"""Paper recipes are sound, verdicts follow from figures, and the committed files score what their results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import gossamer as gs
from gossamer import papers
from gossamer.artifact import inspect
from gossamer.codec import gaps
from gossamer.errors import OptionError
from gossamer.measure import accuracy
from gossamer.methods.deep_compression import dropout_after, paper_row

HOME = Path(__file__).parent.parent / "papers"
RESULTS = sorted(HOME.glob("results/*.json"))


def report(error: float, size: float) -> dict[str, Any]:
    side = {"accuracy": {"value": 1 - error / 100}}
    return {
        "before": side,
        "after": {**side, "file_bytes": size},
        "ratios": {"size": size},
        "stages": [{"density": 0.1}],
    }


@pytest.mark.parametrize("path", sorted(HOME.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_paper_is_short_and_its_recipes_are_checked(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    paper = yaml.safe_load(text)

    assert paper["title"]
    assert paper["reductions"]
    for key in paper["runs"]:
        assert papers.expand(paper["runs"], key, key).steps
    for claim in paper["claims"]:
        assert claim["run"] in paper["runs"]
        assert ("at_least" in claim) != ("at_most" in claim)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_committed_results_belong_to_their_recipe(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    paper = yaml.safe_load((HOME / f"{path.stem}.yaml").read_text(encoding="utf-8"))

    assert result["schema"] == 1
    assert {c["name"] for c in result["claims"]} == {c["name"] for c in paper["claims"]}
    for claim in result["claims"]:
        assert set(claim) == {"name", "published", "claim", "ours", "spread", "seeds", "holds"}
        assert claim["spread"][0] <= claim["ours"] <= claim["spread"][1]


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_committed_files_score_what_their_results_say(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    paper = yaml.safe_load((HOME / f"{path.stem}.yaml").read_text(encoding="utf-8"))

    assert result["file"]
    for name in result["file"]:
        run = name.removeprefix(f"papers/files/{path.stem}-").removesuffix(".goss")
        said = result["runs"][run][0]
        file = HOME.parent / name
        data = gs.load_data(papers.expand(paper["runs"], run, run).data)

        measured = accuracy(gs.open(file), data.test, data.preprocess)

        assert file.stat().st_size == inspect(file).size_bytes == said["file_bytes"]
        assert 100 * (1 - measured.value) == pytest.approx(
            said["error_percent"], abs=0.021
        )  # ties of argmax on other CPUs


def test_a_verdict_follows_from_the_mean_and_the_spread_is_kept() -> None:
    claim = {"name": "n", "run": "a", "figure": "error_percent", "at_most": 1.5, "published": "1.4"}

    row = papers.judge(claim, {"a": [report(1.2, 10), report(1.9, 10), report(1.1, 10)]}, [0, 1, 2])

    assert row["ours"] == pytest.approx(1.4)
    assert row["spread"] == [pytest.approx(1.1), pytest.approx(1.9)]
    assert row["holds"] is True
    assert papers.judge({**claim, "at_most": 1.3}, {"a": [report(1.4, 10)]}, [0])["holds"] is False


def test_runs_are_compared_seed_by_seed() -> None:
    reports = {"a": [report(2.0, 10), report(3.0, 10)], "b": [report(1.5, 10), report(1.0, 10)]}

    row = papers.judge(
        {"name": "n", "run": "a", "figure": "error_percent", "minus": "b", "at_most": 0}, reports, [0, 1]
    )

    assert row["ours"] == pytest.approx(1.25)
    assert not row["holds"]


def test_a_claim_about_a_figure_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'file_byte'.*Did you mean 'file_bytes'"):
        papers.figure_of(report(1.0, 5), "after.file_byte")


def test_a_run_may_be_like_one_that_is_like_another_but_not_like_itself() -> None:
    runs = {
        "a": {"model": "lenet300", "data": "digits", "steps": [{"Prune": {"density": 0.5, "rounds": 2}}]},
        "b": {"like": "a", "change": {"Prune.density": 0.2}},
        "c": {"like": "b", "change": {"Prune.rounds": 1}},
        "d": {"like": "e"},
        "e": {"like": "d"},
    }

    [step] = papers.expand(runs, "c", "test").steps

    assert (step.density, step.rounds) == (0.2, 1)
    with pytest.raises(OptionError, match="no run 'd' to be like"):
        papers.expand(runs, "d", "test")


def test_a_run_like_another_changes_only_what_it_says() -> None:
    runs = {
        "a": {"model": "lenet300", "data": "digits", "steps": [{"Prune": {"density": 0.1, "rounds": 4}}]},
        "b": {"like": "a", "change": {"Prune.rounds": 1}},
    }

    first, second = papers.expand(runs, "a", "a").steps[0], papers.expand(runs, "b", "b").steps[0]

    assert (first.rounds, second.rounds) == (4, 1)  # type: ignore[attr-defined]
    assert first.density == second.density  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="does not have"):
        papers.expand({**runs, "b": {"like": "a", "change": {"Share.bits": 1}}}, "b", "b")


def test_dropout_shrinks_with_the_square_root_of_the_connections() -> None:
    assert dropout_after(0.5, 100, 25) == 0.25  # eq. 2 of Han et al. 2015


def test_the_papers_row_counts_paddings_as_derived() -> None:
    density, bits, index_bits = 0.08, 6, 5
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((300, 784)) < density, rng.integers(1, 2**bits, (300, 784)), 0).astype(
        np.float32
    )

    row = paper_row(weight, code_bits=bits, index_bits=index_bits)

    q = (1 - density) ** (2**index_bits)
    expected = density * (1 + q / (1 - q)) * (bits + index_bits) / 32
    assert row["pq_percent"] == pytest.approx(100 * expected, rel=0.02)  # the paper's Table 2 says 3.1
    _, padding = gaps.relative_index(np.flatnonzero(weight), index_bits)
    assert padding.sum() / (~padding).sum() == pytest.approx(q / (1 - q), rel=0.1)
    assert row["pqh_percent"] < row["pq_percent"]
