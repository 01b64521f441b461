"""kill -9 at random moments of a recipe run, resumed each time: the bytes must be those of an uninterrupted run.

    python benchmarks/kill.py [--times 20] [--write]

The recipe trains, prunes in rounds, shares, fine-tunes and rounds LeNet-300-100 on the bundled digits. Moments are drawn
over the length of an uninterrupted run, importing torch included; a run that ends before its moment starts again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from gossamer.measure import machine

RECIPE = {
    "model": "lenet300",
    "data": "digits",
    "threads": 1,
    "train": {"epochs": 4, "lr": 0.002},
    "steps": [
        {"Prune": {"density": 0.1, "rounds": 3, "epochs": 2}},
        {"Share": {"bits": 4}},
        {"Finetune": {"epochs": 3}},
        "Round",
    ],
}
CODE = (
    "import sys; from pathlib import Path; from gossamer import recipe, run\n"
    "run.run(recipe.load(sys.argv[1]), Path(sys.argv[2]), progress=False)"
)


def start(recipe: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CODE, str(recipe), str(folder)], stderr=subprocess.DEVNULL)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.goss").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/killed-runs.json")
    given = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        recipe = root / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
        began = time.monotonic()
        if start(recipe, root / "whole").wait():
            sys.exit("the uninterrupted run failed")
        length = time.monotonic() - began
        wanted = digest(root / "whole")
        kills, finished, equal = [], 0, 0
        while len(kills) < given.times:
            moment = rng.uniform(0.1, 0.9) * length
            process = start(recipe, root / "killed")
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                stages = root / "killed" / "stages"
                kills.append(
                    {
                        "second": round(moment, 2),
                        "stages": len(list(stages.glob("0*"))) if stages.is_dir() else 0,
                    }
                )
                continue
            finished += 1
            equal += digest(root / "killed") == wanted
            shutil.rmtree(root / "killed")
        if start(recipe, root / "killed").wait():
            sys.exit("the resumed run failed")
        finished += 1
        equal += digest(root / "killed") == wanted
    claim = "kill -9 at 20 random moments, resumed each time: the .goss is bit-identical"
    result = {
        "schema": 1,
        "benchmark": "killed-runs",
        "claims": [
            {
                "name": "killed runs",
                "claim": claim,
                "ours": f"{equal} of {finished} finished runs identical after {len(kills)} kills",
                "holds": equal == finished and len(kills) >= 20,
            }
        ],
        "uninterrupted_seconds": round(length, 1),
        "kills": kills,
        "machine": machine.describe(),
        "date": machine.today(),
        "versions": machine.versions(),
    }
    print(json.dumps(result, indent=1))
    if given.write:
        path = Path(__file__).parent / "results" / "killed-runs.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
