"""Figures of a packed file from a new process in which torch does not exist: what a user of the file gets.

`fresh_figures` starts `python -m gossamer.measure` (see __main__.py), which marks torch as absent, opens the
file, counts right answers on the test split and times calls. Its answer is one line of JSON.
GOSSAMER_PYTHON names another interpreter, one of an environment without torch.
Raises: what the other process raised; MeasureError when it fails otherwise or answers nonsense.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import errors
from ..errors import GossamerError, MeasureError

PYTHON = "GOSSAMER_PYTHON"
ERRORS = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, GossamerError)}


def fresh_figures(
    path: str | Path,
    data: str,
    *,
    against: str | Path | None = None,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 3.0,
    latency: bool | None = None,
) -> dict[str, Any]:
    """{"accuracy": Accuracy as a dictionary, "latency": as `against_onnxruntime` returns it, or None}.

    Latency is measured when `against` is given (see `against_onnxruntime`) or `latency` asks for it. Data
    that a Python function returns may need torch: this process loads it and hands the test split over as
    arrays.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--threads", str(threads), "--batch", str(batch), "--seconds", str(seconds)]
        if against is not None:
            options += ["--against", str(against)]
        if against is not None if latency is None else latency:
            options.append("--latency")
        if ":" in data and not data.startswith("folder:"):
            options += ["--arrays", str(_save(Path(folder), data))]
        else:
            options += ["--data", data]
        return _ask(str(path), options)


def fresh_accuracy(path: str | Path, data: str) -> dict[str, Any]:
    """The accuracy alone: {"correct", "total", "value", "low", "high"}."""
    return dict(fresh_figures(path, data)["accuracy"])


def _ask(path: str, options: list[str]) -> dict[str, Any]:
    """Start the process and read its answer."""
    interpreter = os.environ.get(PYTHON) or sys.executable
    command = [interpreter, "-m", "gossamer.measure", path, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MeasureError(f"{PYTHON}: {interpreter!r} cannot be started ({error.strerror}).") from error
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        if "error" not in answer and "accuracy" in answer:
            return dict(answer)
        said, kind = answer["error"], answer["kind"]
    except (IndexError, ValueError, KeyError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasureError(
            f"{path}: the fresh process ended with status {done.returncode} ({last}), expected its figures. "
            f"{PYTHON}, if set, must name a Python that has gossamer installed."
        ) from error
    if kind in ERRORS:
        raise getattr(errors, kind)(said)
    raise MeasureError(f"{path}: in a fresh process without torch: {said}")


def _save(folder: Path, spec: str) -> Path:
    """The test split of a Python function's data as files that the other side reads back."""
    from ..data import load_data

    data = load_data(spec)
    inputs, labels = data.test.take(slice(0, len(data.test)))
    np.save(folder / "inputs.npy", inputs, allow_pickle=False)
    np.save(folder / "labels.npy", labels, allow_pickle=False)
    (folder / "preprocess.json").write_text(json.dumps(data.preprocess.to_dict()), encoding="utf-8")
    return folder
