"""Recipes are checked whole before any work; a resumed run ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gossamer import recipe, run, stage
from gossamer.errors import GossamerError, OptionError, StepError
from gossamer.formats import attached
from gossamer.models import load_model
from gossamer.steps import FreezeNorms, Prune, Share

TINY: dict[str, Any] = {
    "model": "lenet300",
    "data": "digits",
    "threads": 1,
    "train": {"epochs": 2, "lr": 0.002},
    "steps": [
        {"Prune": {"density": 0.2, "rounds": 2, "epochs": 1}},
        {"Share": {"bits": 3}},
        {"Finetune": {"epochs": 1}},
        "Round",
    ],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**TINY, **changes}


@pytest.mark.parametrize("name", recipe.names())
def test_every_built_in_recipe_loads(name: str) -> None:
    assert recipe.load(name).steps


def test_a_recipe_survives_being_written_and_read() -> None:
    loaded = recipe.load(TINY)

    assert recipe.load(yaml.safe_load(yaml.safe_dump(loaded.to_dict()))) == loaded


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (changed(stepps=[]), "unknown key 'stepps'. Did you mean 'steps'"),
        (changed(steps=[]), "at least one step"),
        (changed(steps=[{"Prun": {}}]), "unknown step 'Prun'. Did you mean 'Prune'"),
        (
            changed(steps=[{"Prune": {"sparcity": 0.5}}]),
            r"step 1 \(Prune\): no option 'sparcity'. Did you mean 'sparsity'",
        ),
        (changed(steps=[{"Prune": {"sparsity": "much"}}]), r"step 1 \(Prune\), sparsity.*received 'much'"),
        (changed(steps=[{"Share": {"bits": 99}}]), r"step 1 \(Share\): .*1 to 12; received 99"),
        (changed(steps=[{"Prune": {"density": 0.5}, "Share": {}}]), "a step is written"),
        (changed(seed=-1), "seed is a whole number"),
        (changed(threads=0), "threads is a whole number"),
        (changed(model=7), "model must name a model"),
        (changed(train={"epoch": 3}), "train: no option 'epoch'. Did you mean 'epochs'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        recipe.load(wrong)


def test_an_unknown_recipe_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'deep-compression'"):
        recipe.load("deep-compresion")
    with pytest.raises(OptionError, match="no such recipe file"):
        recipe.load(tmp_path / "mine.yaml")
    (tmp_path / "broken.yaml").write_text("steps: [", encoding="utf-8")
    with pytest.raises(OptionError, match="not valid YAML"):
        recipe.load(tmp_path / "broken.yaml")


def test_a_run_writes_what_it_promises_and_running_again_changes_nothing(tmp_path: Path) -> None:
    report = run.run(recipe.load(TINY), tmp_path, progress=False)

    first = (tmp_path / "model.goss").read_bytes()
    assert report["after"]["file_bytes"] == len(first) == (tmp_path / "model.goss").stat().st_size
    assert sum(field["bytes"] for field in report["fields"]) == len(first)
    assert [s["name"] for s in report["stages"]] == ["Train", "Prune", "Share", "Finetune", "Round"]
    assert report["stages"][1]["density"] == pytest.approx(0.2, abs=0.002)
    assert report["after"]["max_logit_difference"] < 1e-4
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema"] == 1
    assert recipe.load(tmp_path / "recipe.lock.yaml").steps == recipe.load(TINY).steps
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").rglob("*.safetensors")}

    run.run(recipe.load(TINY), tmp_path, progress=False)

    assert (tmp_path / "model.goss").read_bytes() == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").rglob("*.safetensors")} == kept


def test_a_stage_comes_back_with_its_structure_and_formats(tmp_path: Path) -> None:
    model = load_model("resnet20", seed=0)
    from gossamer.steps import Context

    context = Context()
    step = FreezeNorms(fold=False)
    model = step.apply(model, context)
    model = Share(bits=2).apply(Prune(density=0.5).apply(model, Context()), Context())

    stage.save(tmp_path, "01-all", model, {"edits": context.edits})
    loaded = stage.load(tmp_path, "01-all", lambda: load_model("resnet20", seed=0), [], step)

    assert loaded is not None
    ours, theirs = model.state_dict(), loaded.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[k].equal(theirs[k]) for k in ours)
    assert attached(loaded.model).keys() == attached(model).keys()


def test_a_wrong_layer_fails_before_anything_is_trained(tmp_path: Path) -> None:
    wrong = changed(steps=[{"Finetune": {"epochs": 1}}, {"Share": {"bits": 2, "layers": ["fc7"]}}])

    with pytest.raises(OptionError, match=r"step 3 \(Share\): No layer matches 'fc7'"):
        run.run(recipe.load(wrong), tmp_path, progress=False)

    assert not list(tmp_path.rglob("state.safetensors"))


def test_changing_one_step_keeps_the_stages_before_it(tmp_path: Path) -> None:
    run.run(recipe.load(TINY), tmp_path, progress=False)
    before = set(os.listdir(tmp_path / "stages"))

    other = changed(steps=[TINY["steps"][0], {"Share": {"bits": 2}}])
    run.run(recipe.load(other), tmp_path, progress=False)

    added = set(os.listdir(tmp_path / "stages")) - before
    assert [name.split("-")[1] for name in sorted(added)] == ["Share"]


def test_a_failed_stage_keeps_the_finished_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.apply_one

    def failing(model: Any, step: Any, context: Any, index: int) -> Any:
        if index == 3 and not context.trial:
            raise StepError("step 3 (Share): the disk is full.")
        return real(model, step, context, index)

    monkeypatch.setattr(run, "apply_one", failing)
    with pytest.raises(GossamerError, match="disk is full"):
        run.run(recipe.load(TINY), tmp_path, progress=False)

    assert [name.split("-")[1] for name in sorted(os.listdir(tmp_path / "stages"))] == ["Train", "Prune"]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")

    def start(folder: str) -> subprocess.Popen[bytes]:
        code = (
            "import sys; from pathlib import Path; from gossamer import recipe, run\n"
            "run.run(recipe.load(sys.argv[1]), Path(sys.argv[2]), progress=False)"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "tiny.yaml"), str(tmp_path / folder)]
        )

    began = time.monotonic()
    assert start("whole").wait() == 0
    seconds = time.monotonic() - began
    for moment in (0.45, 0.6, 0.75):
        process = start("killed")
        time.sleep(seconds * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert start("killed").wait() == 0

    assert (tmp_path / "killed" / "model.goss").read_bytes() == (
        tmp_path / "whole" / "model.goss"
    ).read_bytes()
