"""Papers: the proof that a method is what its paper says.

A file of papers/ names the runs (recipes, each with several seeds) and the claims about their figures.
`run_paper` runs what is not yet run, compares, and writes papers/results/NAME.json and papers/files/NAME-RUN.goss.

    runs:
      lenet300: {model: lenet300, data: mnist, train: {...}, steps: [...]}
      one-shot: {like: lenet300, change: {Prune.rounds: 1}}
    claims:
      - {name: size of LeNet-300-100, published: 40x, run: lenet300, figure: ratios.size, at_least: 40}
      - {name: iterating helps, run: lenet300, figure: error_percent, minus: one-shot, at_most: 0}

`figure` is a path into the report (docs/json.md), or `error_percent`; `minus` subtracts the same figure (or
`minus_figure`) of another run, seed by seed. A claim holds when it holds for the mean over seeds of what was measured;
the spread is printed beside it. A claim that fails stays visible as failed.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from . import measure
from .errors import OptionError, nearest
from .methods.deep_compression import paper_table
from .recipe import Recipe, parse
from .run import run

SCHEMA = 1


def home() -> Path:
    """The folder papers/ of the checkout that is being worked in."""
    for folder in [Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents]:
        if (folder / "papers").is_dir() and any((folder / "papers").glob("*.yaml")):
            return folder / "papers"
    raise OptionError(
        "There is no folder papers/ here. Run this in a checkout of the project, or name a .yaml file."
    )


def names() -> list[str]:
    """The papers that can be run here."""
    return sorted(path.stem for path in home().glob("*.yaml"))


def run_paper(
    name_or_path: str | Path, *, folder: Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Run a paper's recipes, judge its claims, and write its results; finished runs are taken from the run folder."""
    path = Path(name_or_path)
    if path.suffix != ".yaml":
        if str(name_or_path) not in names():
            raise OptionError(f"Unknown paper {str(name_or_path)!r}. {nearest(str(name_or_path), names())}")
        path = home() / f"{name_or_path}.yaml"
    paper = yaml.safe_load(path.read_text(encoding="utf-8"))
    folder = folder or Path("runs") / "papers" / path.stem
    store = folder.parent / "store"  # papers share their dense networks
    seeds = paper.get("seeds", [0, 1, 2])
    recipes = {key: expand(paper["runs"], key, f"{path.stem}-{key}") for key in paper["runs"]}
    kept = set(paper.get("keep", recipes))
    reports: dict[str, list[dict[str, Any]]] = {}
    files = []
    for key, recipe in recipes.items():
        own = paper["runs"][key].get("seeds", seeds)
        reports[key] = [
            run(recipe.replace(seed=seed), folder / key / f"seed-{seed}", store=store, progress=progress)
            for seed in own
        ]
        if key in kept:
            files.append(
                _keep(folder / key / f"seed-{own[0]}" / "model.goss", path.parent, f"{path.stem}-{key}")
            )
    result = {
        "schema": SCHEMA,
        "paper": path.stem,
        "title": paper["title"],
        "reductions": paper.get("reductions", "none"),
        "claims": [judge(claim, reports, seeds) for claim in paper["claims"]],
        "tables": {
            key: paper_table(folder / key / f"seed-{seeds[0]}" / "model.goss", table)
            for key, table in paper.get("tables", {}).items()
        },
        "runs": {key: [_summary(report) for report in entries] for key, entries in reports.items()},
        "file": files,
        "machine": measure.machine.describe(),
        "date": measure.machine.today(),
        "versions": measure.machine.versions(),
    }
    (path.parent / "results").mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (path.parent / "results" / f"{path.stem}.json").write_text(text + "\n", encoding="utf-8")
    return result


def expand(runs: dict[str, Any], key: str, name: str) -> Recipe:
    """The recipe of a run; `like` copies another run and `change` sets `Step.option` or `train.option`."""
    tree = _resolved(runs, key, name, ())
    # the claims are about integers, whatever the speed of this machine
    return parse({"keep_integers": True, **tree, "name": name}, name)


def _resolved(runs: dict[str, Any], key: str, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The tree of a run, with everything that it is like."""
    tree: dict[str, Any] = copy.deepcopy(runs[key])
    if "like" in tree:
        if tree["like"] not in runs or tree["like"] in (*seen, key):
            raise OptionError(f"{name}: no run {tree['like']!r} to be like. {nearest(tree['like'], runs)}")
        changes = tree.get("change", {})
        tree = _resolved(runs, tree["like"], name, (*seen, key))
        for target, value in changes.items():
            step, _, option = target.partition(".")
            places = [s[step] for s in tree["steps"] if isinstance(s, dict) and step in s]
            places += [tree["train"]] if step == "train" else []
            if not places:
                raise OptionError(f"{name}: {target!r} changes a step that the recipe does not have.")
            for place in places:
                place[option] = value
    tree.pop("seeds", None)
    return tree


def judge(
    claim: dict[str, Any], reports: dict[str, list[dict[str, Any]]], seeds: list[int]
) -> dict[str, Any]:
    """One row of the results: the claim as text, our mean figure, its spread over the seeds, and the verdict."""
    values = [figure_of(report, claim["figure"]) for report in reports[claim["run"]]]
    if "minus" in claim:
        other = claim.get("minus_figure", claim["figure"])
        values = [a - figure_of(b, other) for a, b in zip(values, reports[claim["minus"]], strict=True)]
    mean = fmean(values)
    bounds = {"at_least": claim.get("at_least"), "at_most": claim.get("at_most")}
    holds = (bounds["at_least"] is None or mean >= bounds["at_least"]) and (
        bounds["at_most"] is None or mean <= bounds["at_most"]
    )
    said = " and ".join(
        f"{word.replace('_', ' ')} {bound}" for word, bound in bounds.items() if bound is not None
    )
    return {
        "name": claim["name"],
        "published": claim.get("published"),
        "claim": said,
        "ours": round(mean, 4),
        "spread": [round(min(values), 4), round(max(values), 4)],
        "seeds": len(values),
        "holds": holds,
    }


def figure_of(report: dict[str, Any], path: str) -> float:
    """A number of the report by its path; `error_percent` and `drop_points` are derived from the accuracies."""
    before, after = (report[side]["accuracy"]["value"] for side in ("before", "after"))
    derived = {
        "accuracy_percent": 100 * after,
        "error_percent": 100 * (1 - after),
        "error_percent_before": 100 * (1 - before),
        "drop_points": 100 * (before - after),
    }
    if path in derived:
        return round(float(derived[path]), 6)
    value: Any = report
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError):
            known = list(value) if isinstance(value, dict) else [f"0..{len(value) - 1}"]
            raise OptionError(
                f"A claim asks for the figure {path!r}, but {part!r} is not there. {nearest(part, known)}"
            ) from None
    return float(value)


def _keep(model: Path, papers: Path, name: str) -> str:
    (papers / "files").mkdir(exist_ok=True)
    shutil.copyfile(model, papers / "files" / f"{name}.goss")
    return f"papers/files/{name}.goss"


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "seed": report["seed"],
        "file_bytes": report["after"]["file_bytes"],
        "overhead_bytes": report["after"]["overhead_bytes"],
        "size_ratio": round(report["ratios"]["size"], 3),
        "error_percent_before": figure_of(report, "error_percent_before"),
        "error_percent": figure_of(report, "error_percent"),
        "latency_ratio": report["ratios"]["latency"],
        "stages": [
            {
                "name": s["name"],
                "validation_accuracy": s["validation_accuracy"],
                "density": s["density"],
                "seconds": s["seconds"],
            }
            for s in report["stages"]
        ],
    }
