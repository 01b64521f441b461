"""Stage: one finished step of a run, kept on disk so that an interrupted run goes on where it stopped.

A stage is keyed by the hash of everything that decides its result: the stages before it, the step's options, model
and weights, data, seed, threads, and the code. Its folder is written beside and renamed when complete, so a stage
is there whole or not at all. State is tensors (safetensors) and the format trees as JSON; nothing is pickled.

    stages/02-Prune-1f6c9a3e5b7d/{state.safetensors, stage.json}
    work/02-Prune-1f6c9a3e5b7d/...      checkpoints of the training inside a stage that is not finished
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from . import formats, methods
from .errors import GossamerError
from .formats import WeightFormat
from .steps import Step
from .steps.base import Edit


@dataclass(frozen=True)
class Stage:
    """What a finished stage left: the model and everything it had to tell (JSON)."""

    model: nn.Module
    told: dict[str, Any]


@cache
def code_version(module: str) -> str:
    """Hash of the source of a module and of all it imports from this package, and of torch's version.

    The environment variable GOSSAMER_CODE_VERSION replaces it: who changes code and knows that no result changes
    keeps the finished stages that way.
    """
    if fixed := os.environ.get("GOSSAMER_CODE_VERSION"):
        return fixed
    package = __package__ or "gossamer"
    digest, todo, seen = hashlib.sha256(torch.__version__.encode()), [module], set[str]()
    while todo:
        name = todo.pop()
        spec = None if name in seen or not name.startswith(package) else _spec(name)
        seen.add(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        source = Path(spec.origin).read_bytes()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    inside = name if spec.submodule_search_locations else name.rpartition(".")[0]
                    base = importlib.util.resolve_name("." * node.level + base, inside)
                todo += (
                    [base, *(f"{base}.{alias.name}" for alias in node.names)]
                    if base != package
                    else [f"{base}.{alias.name}" for alias in node.names]
                )
            elif isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
    for name in sorted(seen):
        if name.startswith(package) and (spec := _spec(name)) is not None and spec.origin:
            digest.update(name.encode() + Path(spec.origin).read_bytes())
    return digest.hexdigest()


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:  # an imported name that is not a module
        return None


def key_of(previous: str, decision: dict[str, Any], code: str) -> str:
    """The key of a stage, from the key of the one before, its own decision, and the module that carries it out."""
    text = json.dumps([previous, decision, code_version(code)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save(folder: Path, name: str, model: nn.Module, told: dict[str, Any]) -> None:
    """Keep a finished stage under FOLDER/stages/NAME, whole or not at all."""
    target = folder / "stages" / name
    building = folder / "stages" / f".{name}.part"
    tensors, trees = formats.state(model)
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, building / "state.safetensors")
        (building / "stage.json").write_text(json.dumps({**told, "formats": trees}), encoding="utf-8")
        for file in building.iterdir():
            _sync(file)
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
        _sync(target.parent)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise GossamerError(
            f"{target}: the stage could not be kept ({error.strerror}). Finished stages are safe; "
            "free some space and run the same command again."
        ) from error


def load(
    folder: Path,
    name: str,
    fresh: Callable[[], nn.Module],
    earlier: list[tuple[Step, list[Edit]]],
    step: Step | None,
) -> Stage | None:
    """The kept stage, or None. `fresh` makes the plain model; the structural edits so far are repeated on it."""
    place = folder / "stages" / name
    if not (place / "stage.json").is_file():
        return None
    told = json.loads((place / "stage.json").read_text(encoding="utf-8"))
    model = fresh()
    for done, edits in [*earlier, *([(step, told.get("edits", []))] if step is not None else [])]:
        model = done.rebuild(model, edits)
    known: dict[str, type[WeightFormat]] = {n: getattr(formats, n) for n in formats.__all__}
    known |= {
        n: c
        for n in methods.__all__
        if isinstance(c := getattr(methods, n), type) and issubclass(c, WeightFormat)
    }
    trees = {n: formats.from_dict(tree, known) for n, tree in told.pop("formats").items()}
    formats.restore(model, load_file(place / "state.safetensors"), trees)
    return Stage(model, told)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
