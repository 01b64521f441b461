"""A recipe run: baseline, steps, pack, verify in a fresh process without torch, report.

    FOLDER/original.goss       the uncompressed network, packed, for the comparison
    FOLDER/model.goss          the result
    FOLDER/report.json, report.html, recipe.lock.yaml
    FOLDER/stages, FOLDER/work what a resumed run needs

Running the same recipe in the same folder again resumes it; a finished run costs only its report. Before the first
real step, every step is tried on one batch, so that a wrong option fails in seconds.

A network of integers that is slower than the uncompressed one ships as floats: its weights stay on their grids, stored as
small as before, and become floats when the file is opened. The report says so under "fallback"; `keep_integers` in the
recipe keeps the integers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from . import formats, quantizers, stage
from .data import Data, load_data
from .errors import GossamerError
from .export import Packed, pack
from .measure import fresh_figures, machine
from .models import load_model
from .recipe import Recipe
from .report import build, html
from .steps import Context, Step
from .steps.apply import apply_one, teacher_of
from .steps.base import Edit
from .training import evaluate


def run(
    recipe: Recipe,
    folder: Path,
    *,
    store: Path | None = None,
    resume: bool = True,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
    figures: Callable[..., dict[str, Any]] = fresh_figures,
) -> dict[str, Any]:
    """Run `recipe` in `folder` and return the report (schema 1, docs/json.md).

    store: where finished stages are kept (default: the folder); runs that share one share their common first stages.
    tell: called with one line for every stage that is finished. figures: measures a file, as `fresh_figures` does.
    """
    tell = tell or (lambda line: None)
    recipe = recipe.replace(threads=recipe.threads or machine.describe()["cores"])
    torch.set_num_threads(recipe.threads or 1)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        for name in ("stages", "work"):
            shutil.rmtree(folder / name, ignore_errors=True)
    data = load_data(recipe.data)
    original, last, stages = compress(recipe, data, store or folder, progress=progress, tell=tell)
    lock = recipe.to_dict()
    _write(folder / "recipe.lock.yaml", yaml.safe_dump(lock, sort_keys=False))
    example = example_of(data)
    described: dict[str, Any] = {"preprocess": data.preprocess, "labels": data.classes}
    baseline = pack(original, folder / "original.goss", example, **described)
    described["metadata"] = {"recipe": recipe.name}
    packed = pack(last, folder / "model.goss", example, **described)
    tell(f"packed {packed.size_bytes} bytes; measuring the file in a fresh process")
    before = figures(baseline.path, recipe.data)
    beside = {"against": baseline.path, "threads": recipe.threads or 1}
    after, fallback = figures(packed.path, recipe.data, **beside), None
    if quantizers.quantized(last) and not recipe.keep_integers and slower(after["latency"]):
        fallback = fallback_of(packed, after)
        tell(f"{fallback['reason']}; packing floats")
        described["metadata"]["fallback"] = fallback["reason"]
        packed = pack(floats(last), folder / "model.goss", example, **described)
        after = figures(packed.path, recipe.data, **beside)
    report = build.report(
        recipe=lock,
        original=original,
        model=last,
        stages=stages,
        packed=packed,
        figures={"before": before, "after": after},
        machine=machine.describe(),
        fallback=fallback,
    )
    _write(folder / "report.json", json.dumps(report, indent=1))
    html.write(report, folder / "report.html")
    return report


def slower(latency: Mapping[str, Any] | None) -> bool:
    """Whether a COMPARISON (docs/json.md) calls the file slower than the float32 network."""
    return latency is not None and latency["ratio_of_medians"] < 1 and not latency["overlap"]


def floats(model: nn.Module) -> nn.Module:
    """A copy that computes in floats: no rounded activations, the weights on their grids."""
    plain = copy.deepcopy(model)
    quantizers.detach(plain)
    return plain


def fallback_of(packed: Packed, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of integers that do not ship."""
    share = figures["latency"]["ratio_of_medians"]
    reason = f"integers run at {share:.2f} times the speed of float32 here, so the file computes in floats"
    kept = {"file_bytes": packed.size_bytes, "accuracy": figures["accuracy"], "latency": figures["latency"]}
    return {"reason": reason, "integers": kept}


def compress(
    recipe: Recipe,
    data: Data,
    folder: Path,
    *,
    progress: bool = True,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[nn.Module, nn.Module, list[dict[str, Any]]]:
    """The original network, the compressed one, and what each stage had to tell; resumes from `folder`."""

    def fresh() -> nn.Module:
        return load_model(recipe.model, None, seed=recipe.seed)

    start = load_model(recipe.model, recipe.weights, seed=recipe.seed)
    plan: list[Step] = [*([recipe.train] if recipe.train and not recipe.weights else []), *recipe.steps]
    base = {
        "model": recipe.model,
        "state": _fingerprint(start),
        "data": data.fingerprint(),
        "seed": recipe.seed,
    }
    key = stage.key_of("", {**base, "threads": recipe.threads}, load_data.__module__)
    trained = len(plan) - len(recipe.steps)
    keys = [key := stage.key_of(key, step.to_dict(), type(step).__module__) for step in plan]
    names = [f"{i:02}-{type(s).__name__}-{k}" for i, (s, k) in enumerate(zip(plan, keys, strict=True), 1)]
    if not all((folder / "stages" / name / "stage.json").is_file() for name in names):
        _try(start, plan, trained, data, recipe)
    model, original = start, start
    told: list[dict[str, Any]] = []
    earlier: list[tuple[Step, list[Edit]]] = []
    for index, (step, name) in enumerate(zip(plan, names, strict=True), 1):
        kept = stage.load(folder, name, fresh, earlier, step)
        if kept is None:
            context = Context(
                data=data,
                example=example_of(data),
                seed=recipe.seed,
                teacher=teacher_of(original) if index > trained else None,
                folder=folder / "work" / name,
                progress=progress,
            )
            model = _one(model, step, context, index, name, data, folder)
            kept = stage.load(folder, name, fresh, earlier, step)
            assert kept is not None
        model, entry = kept.model, kept.told
        earlier.append((step, entry["edits"]))
        told.append(entry)
        tell(
            f"{index}/{len(plan)} {entry['name']}: {entry['seconds']:.1f} s, "
            f"validation accuracy {100 * entry['validation_accuracy']:.2f} %, density {100 * entry['density']:.1f} %"
        )
        if index == trained:
            original = formats.baked(model)
    return original, model, told


def _one(
    model: nn.Module, step: Step, context: Context, index: int, name: str, data: Data, folder: Path
) -> nn.Module:
    """Do one step and keep its stage."""
    began = time.monotonic()
    model = apply_one(copy.deepcopy(model), step, context, index)
    seconds = time.monotonic() - began
    measured = evaluate(model, data.validation, data.preprocess)
    values = formats.plain_parameters(model).values()
    told = {
        "name": type(step).__name__,
        "options": next(iter(step.to_dict().values())),
        "seconds": round(seconds, 3),
        "validation_accuracy": measured.accuracy,
        "density": sum(int((v != 0).sum()) for v in values) / max(sum(v.numel() for v in values), 1),
        "skipped": context.skipped,
        "history": [epoch for history in context.history for epoch in history.to_list()],
        "edits": context.edits,
        "notes": context.notes,
    }
    stage.save(folder, name, model, told)
    shutil.rmtree(folder / "work" / name, ignore_errors=True)
    return model


def _try(start: nn.Module, plan: list[Step], trained: int, data: Data, recipe: Recipe) -> None:
    """Every step on one batch, so that what cannot work fails before hours are spent."""
    model = copy.deepcopy(start)
    context = Context(
        data=data, example=example_of(data), seed=recipe.seed, trial=True, teacher=teacher_of(start)
    )
    # a model that cannot be called says so here
    evaluate(model, data.validation.subset(range(1)), data.preprocess)
    for index, step in enumerate(plan, 1):
        if index == trained + 1:
            context.teacher = teacher_of(model)
        model = apply_one(model, step, context, index)


def example_of(data: Data) -> torch.Tensor:
    """Two preprocessed inputs, for tracing."""
    return torch.from_numpy(data.batch(2))


def _fingerprint(model: nn.Module) -> str:
    """Hash of every tensor of the model, with names and shapes."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise GossamerError(f"{path}: could not be written ({error.strerror}).") from error
