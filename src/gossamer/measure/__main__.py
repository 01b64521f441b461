"""`python -m gossamer.measure FILE --data SPEC`: the other side of `fresh`, in which torch does not exist.

Before anything is loaded torch is marked as absent: `sys.modules["torch"] = None` makes every import of it
fail as on a machine that lacks it. One line of JSON goes to standard output: the figures, or {"error": ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GossamerError, MeasureError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print one line of JSON, return the exit status."""
    parser = argparse.ArgumentParser(prog="gossamer.measure.fresh")
    parser.add_argument("file")
    parser.add_argument("--data")
    parser.add_argument("--arrays", type=Path)
    parser.add_argument("--against")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args(arguments)
    try:
        if "torch" in sys.modules:
            raise MeasureError("torch was imported before the measurement began.")
        sys.modules["torch"] = None  # type: ignore[assignment]  # None is how Python marks a module as absent
        answer = _measure(given)
    except (GossamerError, OSError, ModuleNotFoundError) as error:
        print(json.dumps({"error": " ".join(str(error).split()), "kind": type(error).__name__}))
        return 1
    print(json.dumps(answer))
    return 0


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    from ..data import Preprocess, Split, load_data
    from ..runtime import open as open_file
    from .accuracy import accuracy
    from .latency import against_onnxruntime

    if given.arrays:
        labels = np.load(given.arrays / "labels.npy", allow_pickle=False)
        split = Split(np.load(given.arrays / "inputs.npy", allow_pickle=False), labels, "test")
        preprocess = Preprocess.from_dict(json.loads((given.arrays / "preprocess.json").read_text()))
    else:
        data = load_data(given.data)
        split, preprocess = data.test, data.preprocess
    session = open_file(given.file)
    if session.preprocess:
        preprocess = Preprocess.from_dict(session.preprocess)  # the file's own: what `gossamer run` would use
    found = {"accuracy": accuracy(session, split, preprocess).to_dict(), "latency": None}
    if given.latency:
        found["latency"] = against_onnxruntime(
            given.file, against=given.against, threads=given.threads, batch=given.batch, seconds=given.seconds
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
