"""`python -m gossamer.measure.fresh FILE --data SPEC`: accuracy of a packed file, where torch cannot be imported.

The answer is one line of JSON on standard output, {"correct", "total"} or {"error"}. Before anything is loaded torch
is made absent (`sys.modules["torch"] = None`: every import of it fails as on a machine that lacks it).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import GossamerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print one line of JSON, return the exit status."""
    parser = argparse.ArgumentParser(prog="gossamer.measure.fresh")
    parser.add_argument("file")
    parser.add_argument("--data")
    parser.add_argument("--arrays", type=Path)
    parser.add_argument("--batch", type=int, default=500)
    given = parser.parse_args(arguments)
    if "torch" in sys.modules:
        print(json.dumps({"error": "torch was imported before the measurement began."}))
        return 1
    sys.modules["torch"] = None  # type: ignore[assignment]  # None is how Python marks a module as absent
    try:
        from ..data import Preprocess, Split, load_data
        from ..runtime import open as open_file
        from .accuracy import accuracy

        if given.arrays:
            labels = np.load(given.arrays / "labels.npy", allow_pickle=False)
            split = Split(np.load(given.arrays / "inputs.npy", allow_pickle=False), labels, "test")
            preprocess = Preprocess.from_dict(json.loads((given.arrays / "preprocess.json").read_text()))
        else:
            data = load_data(given.data)
            split, preprocess = data.test, data.preprocess
        found = accuracy(open_file(given.file), split, preprocess, batch=given.batch)
    except (GossamerError, OSError, ModuleNotFoundError) as error:
        print(json.dumps({"error": " ".join(str(error).split())}))
        return 1
    print(json.dumps({"correct": found.correct, "total": found.total}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
