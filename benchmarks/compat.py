"""Channel pruning on networks as they come: what is traced, cut in half, equal, packed and reopened; torch-pruning beside.

    make compat                                          all networks, fills docs/compatibility.md
    python benchmarks/compat.py [NETWORK ...] [--page]   some of them; --page: the page alone, from the result
    PYTHONPATH=PEERS python benchmarks/compat.py         with torch-pruning (pip install --no-deps --target PEERS
                                                         torch-pruning==1.6.1)

A row is green when: the network is traced and groups are found; a choice by `group-l2` leaves at most half of its
multiply-adds; the cut network's outputs equal those of the original with the same channels masked, within 1e-4 of the
largest; the plan applied to a fresh network gives the same outputs; the packed file, reopened without torch, gives them too.
Every network runs in a process of its own with a limit of time (torch-pruning in another). Weights are random.
torch-pruning gets the same network and the same job: half of the multiply-adds, by raising the ratio of its BasePruner
until its own count says so, then a forward pass.
Result: benchmarks/results/compat.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compat_networks import NETWORKS
from torch import Tensor, nn

import gossamer as gs
from gossamer import measure, pruning
from gossamer.steps import PruneChannels
from gossamer.steps.base import Context

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "compat.json"
PAGE = ROOT / "docs" / "compatibility.md"
MARKED = re.compile(r"(<!-- compat: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
SECONDS = 600
HALF = 0.5
TOLERANCE = 1e-4


def call(model: nn.Module, example: Any) -> Any:
    with torch.no_grad():
        return model(**example) if isinstance(example, dict) else model(*example)


def tensors(outputs: Any) -> list[Tensor]:
    """The floating tensors of whatever a network returns, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, dict) or hasattr(outputs, "values"):
        outputs = list(outputs.values())
    return [t for each in outputs for t in tensors(each)] if isinstance(outputs, (list, tuple)) else []


def difference(ours: list[Tensor], reference: list[Tensor]) -> float:
    """The largest difference of any output, over the largest value of that output."""
    if [t.shape for t in ours] != [t.shape for t in reference] or not ours:
        return float("inf")
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
        for a, b in zip(ours, reference, strict=True)
    )


def fresh(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = NETWORKS[name].build().eval()
    # norms in training mode would make random networks equal whatever is cut: give them statistics of their own
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, NETWORKS[name].example()


def ours(name: str) -> dict[str, Any]:
    """Our row of the table; the first thing that fails is named in `failed`."""
    row: dict[str, Any] = {"family": NETWORKS[name].family}
    model, example = fresh(name)
    row["parameters"] = sum(p.numel() for p in model.parameters())
    try:
        began = time.perf_counter()
        groups = pruning.find_groups(model, example)
        row["analysis_seconds"] = round(time.perf_counter() - began, 2)
        row["groups"] = len(groups)
        row["walls"] = sorted({str(wall) for wall in groups.walls})
        context = Context(example=example)
        smaller = PruneChannels(macs=HALF, min_width=NETWORKS[name].least).apply(model, context)
        plan = pruning.Plan.from_json(context.edits[-1]["plan"])
        before, after = (measure.profile(m, example).macs for m in (model, smaller))
        row["macs_share"] = after / before
        choice = {
            group: torch.zeros(groups[group].size).index_fill(0, torch.tensor(units), 1).bool()
            for group, units in plan.kept.items()
        }
        with pruning.masked(model, choice, groups):
            masked = tensors(call(model, example))
        cut = tensors(call(smaller, example))
        row["masked_difference"] = difference(cut, masked)
        again = plan.apply(fresh(name)[0])
        row["plan_difference"] = difference(tensors(call(again, example)), cut)
        with tempfile.TemporaryDirectory() as folder:
            gs.pack(smaller, path := Path(folder) / "model.goss", example)
            session = gs.open(path)
            feeds = {k: v.numpy() for k, v in example.items()} if isinstance(example, dict) else None
            arrays = session(**feeds) if feeds else session(*(x.numpy() for x in example))
            arrays = arrays.values() if isinstance(arrays, dict) else arrays
            arrays = arrays if isinstance(arrays, (list, tuple)) or not hasattr(arrays, "shape") else [arrays]
            row["packed_difference"] = difference(
                [torch.from_numpy(a) for a in arrays if a.dtype.kind == "f"], cut
            )
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {error}"[:400]
        if not isinstance(error, gs.GossamerError):
            row["trace"] = traceback.format_exc()[-1500:]
    figures = [row.get(f"{kind}_difference", float("inf")) for kind in ("masked", "plan", "packed")]
    row["green"] = bool(
        "failed" not in row
        and row["macs_share"] <= HALF * 1.001
        and all(each <= TOLERANCE for each in figures)
    )
    row["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return row


def theirs(name: str) -> dict[str, Any]:
    """torch-pruning on the same network."""
    import torch_pruning as tp

    row: dict[str, Any] = {}
    try:
        for ratio in (0.25, 0.3, 0.35, 0.4, 0.5, 0.6):
            model, example = fresh(name)
            inputs = example if isinstance(example, dict) else tuple(example)
            inputs = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
            began = time.perf_counter()
            macs = tp.utils.count_ops_and_params(model, inputs)[0]
            outer = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features in (10, 1000)]
            pruner = tp.pruner.BasePruner(
                model, inputs, importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio, ignored_layers=outer, num_heads=_heads(model),
                prune_num_heads=bool(_heads(model)), head_pruning_ratio=ratio,
            )  # fmt: skip
            pruner.step()
            outputs = tensors(call(model, example))
            row |= {"seconds": round(time.perf_counter() - began, 2), "ratio": ratio}
            row["macs_share"] = tp.utils.count_ops_and_params(model, inputs)[0] / macs
            row["runs"] = bool(outputs) and all(bool(t.isfinite().all()) for t in outputs)
            if row["macs_share"] <= HALF:
                break
    except Exception as error:
        row["failed"] = f"{type(error).__name__}: {error}"[:300]
    row["ok"] = bool("failed" not in row and row.get("runs") and row["macs_share"] <= HALF)
    return row


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """The heads of attention layers, as torch-pruning asks for them: by the projections of queries, keys and values."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        count = next(
            (
                getattr(module, n)
                for n in ("num_attention_heads", "num_heads", "n_heads")
                if hasattr(module, n)
            ),
            0,
        )
        for name, layer in module.named_children():
            if (
                count
                and isinstance(layer, nn.Linear)
                and name
                in (
                    "query",
                    "key",
                    "value",
                    "q",
                    "k",
                    "v",
                    "q_proj",
                    "k_proj",
                    "v_proj",
                    "q_lin",
                    "k_lin",
                    "v_lin",
                )
            ):
                found[layer] = int(count)
    return found  # fmt: skip


def one(name: str, row: Callable[[str], dict[str, Any]]) -> None:
    """A row of one network, as JSON on the last line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        made = row(name)
    print(json.dumps(made))


def apart(option: str, name: str, seconds: int) -> dict[str, Any]:
    """The row that another process makes within the time."""
    command = [sys.executable, __file__, option, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {seconds} s"}
    if done.returncode:
        return {"failed": (done.stderr or "no output")[-300:]}
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--ours")
    parser.add_argument("--theirs")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    options = parser.parse_args()
    if options.ours or options.theirs:
        return one(options.ours or options.theirs, ours if options.ours else theirs)
    result = (
        json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"schema": 1, "networks": {}}
    )
    for name in [] if options.page else options.networks or NETWORKS:
        row = {"family": NETWORKS[name].family, "green": False, **apart("--ours", name, options.seconds)}
        if importlib.util.find_spec("torch_pruning"):
            row["torch_pruning"] = {"ok": False, **apart("--theirs", name, options.seconds)}
        print(name, "green" if row["green"] else f"RED {row.get('failed', row)}", flush=True)
        result["networks"][name] = row
        result["machine"] = measure.machine.describe()
        result["networks"] = {n: result["networks"][n] for n in NETWORKS if n in result["networks"]}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page(result)


def page(result: dict[str, Any]) -> None:
    """Write the table into the page, between its marks."""
    rows = result["networks"]
    green = sum(row["green"] for row in rows.values())
    peers = [row["torch_pruning"] for row in rows.values() if "torch_pruning" in row]
    summary = f"{green} of {len(rows)} networks green"
    summary += f"; torch-pruning: {sum(p['ok'] for p in peers)} of {len(peers)}." if peers else "."
    lines = ["| network | family | groups | MACs left | cut = masked | plan | packed | seconds | torch-pruning |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, row in rows.items():
        cells = [name, row["family"], str(row.get("groups", "")), _percent(row.get("macs_share"))]
        cells += [_figure(row.get(f"{kind}_difference")) for kind in ("masked", "plan", "packed")]
        cells += [str(row.get("analysis_seconds", "")), _peer(row.get("torch_pruning"))]
        if not row["green"]:
            cells[2] = f"**{row.get('failed', 'not green')}**".replace("|", "/").replace("\n", " ")
        lines.append("| " + " | ".join(cells) + " |")
    filled = {"summary": summary, "table": "\n".join(lines)}
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda m: f"{m[1]}\n{filled[m[2]]}\n{m[3]}", text), encoding="utf-8")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def _peer(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["ok"]:
        return f"{_percent(row['macs_share'])}"
    return (
        row.get("failed", f"{_percent(row.get('macs_share'))} at most").split("\n")[0][:80].replace("|", "/")
    )


if __name__ == "__main__":
    main()
