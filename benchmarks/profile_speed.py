"""Seconds and memory that `gossamer.profile` takes: ResNet-50, and a 7-billion-parameter Llama on the meta device.

    python benchmarks/profile_speed.py [--times 5] [--write]

Each figure is of a fresh process; importing torch, the network's package and gossamer is timed apart, what torch
imports at the first call is not. The figure is CPU time of the one thread that works, best of all processes: it is
the wall time where the machine does nothing else, which a shared one does. Wall times are recorded beside it. Memory
is the most that was resident (VmHWM), everything imported included. The counts are checked against closed formulas.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gossamer.measure import machine

RESULT = Path(__file__).parent / "results" / "profile-speed.json"
LAYERS, WIDTH, MLP, VOCABULARY = 32, 4096, 11008, 32000
CASES = {
    "ResNet-50": "from pytorchcv.models.resnet import resnet50b as make; example = (1, 3, 224, 224)",
    "Llama 7B, 128 tokens": "tokens = 128",
    "Llama 7B, 2048 tokens": "tokens = 2048",
}
LLAMA = f"""
from transformers import LlamaConfig, LlamaForCausalLM
def make():
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(
            vocab_size={VOCABULARY}, hidden_size={WIDTH}, intermediate_size={MLP}, num_hidden_layers={LAYERS},
            num_attention_heads=32, num_key_value_heads=32))
example = {{"input_ids": torch.zeros(1, tokens, dtype=torch.int64)}}
"""
CODE = """
import json, time
start = time.perf_counter()
import torch
SETUP
import gossamer.measure.dispatch
from gossamer.measure.profile import profile
imported = time.perf_counter()
net = make()
built, before = time.perf_counter(), time.process_time()
found = profile(net, example)
after, done = time.process_time(), time.perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "import_s": round(imported - start, 2), "build_s": round(built - imported, 2),
    "profile_cpu_s": round(after - before, 2), "profile_wall_s": round(done - built, 2),
    "peak_resident_mb": round(int(status["VmHWM"].split()[0]) * 1.024e-3),
    "params": found.params, "macs": found.macs, "operations": len(found.schedule.operations),
    "uncounted": len(found.uncounted), "notes": list(found.notes)}))
"""


def expected(name: str) -> int:
    """MACs by a closed formula: projections, scores and sums, MLP, head."""
    if name == "ResNet-50":
        return 4_089_184_256
    tokens = int(name.split()[2])
    layer = 4 * WIDTH**2 + 2 * tokens * WIDTH + 3 * WIDTH * MLP
    return tokens * (LAYERS * layer + WIDTH * VOCABULARY)


def run(name: str) -> dict[str, Any]:
    setup = CASES[name] + (LLAMA if "Llama" in name else "")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE.replace("SETUP", setup)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/profile-speed.json")
    given = parser.parse_args()
    rows = []
    for name in CASES:
        runs = [run(name) for _ in range(given.times)]
        best = min(runs, key=lambda one: one["profile_cpu_s"])
        rows.append(
            {
                "network": name,
                **best,
                "profile_cpu_s_all": sorted(one["profile_cpu_s"] for one in runs),
                "profile_wall_s_all": sorted(one["profile_wall_s"] for one in runs),
                "peak_resident_mb": max(one["peak_resident_mb"] for one in runs),
                "macs_expected": expected(name),
            }
        )
    resnet, *llamas = rows
    slowest = max(one["profile_cpu_s"] for one in llamas)
    most = max(one["peak_resident_mb"] for one in llamas)
    exact = sum(one["macs"] == one["macs_expected"] and not one["notes"] for one in rows)
    claims = [
        ("ResNet-50", "profiled in under 3 s", f"{resnet['profile_cpu_s']} s", resnet["profile_cpu_s"] < 3),
        ("Llama 7B", "profiled in under 20 s", f"{slowest} s", slowest < 20),
        ("Llama 7B, memory", "under 2 GB resident", f"{most / 1000:.2f} GB", most < 2000),
        ("counts", "equal the closed formulas", f"{exact} of {len(rows)}", exact == len(rows)),
    ]
    result = {
        "schema": 1,
        "benchmark": "profile-speed",
        "claims": [
            {"name": name, "claim": claim, "ours": ours, "holds": holds}
            for name, claim, ours, holds in claims
        ],
        "timing": f"CPU time of one thread, best of {given.times} fresh processes, imports apart",
        "networks": rows,
        "machine": machine.describe(),
        "date": machine.today(),
        "versions": machine.versions(),
    }
    if given.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, claim, ours, holds in claims:
        print(f"{'holds ' if holds else 'FAILS '} {name}: {ours}  ({claim})")
    return 0 if all(holds for *_, holds in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
