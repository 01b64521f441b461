"""Our counts beside those of thop, fvcore, ptflops, torchinfo and torch: every disagreement with its reason.

    pip install --no-deps --target PEERS thop==0.1.1.post2209072238 fvcore==0.1.5.post20221221 ptflops==0.7.5 \
        torchinfo==1.8.0 iopath==0.1.10 yacs==0.1.8 tabulate==0.10.0 portalocker==4.4.2 termcolor==3.3.0
    PYTHONPATH=PEERS python benchmarks/counters.py --write    writes benchmarks/results/counters.json
    python benchmarks/counters.py --page                      fills docs/counters.md from it, without the packages

transformers, pytorchcv and tqdm are needed too. Each tool gets a fresh network in eval mode, with gradients enabled
unless the network is frozen. A raw number keeps the tool's own unit; FLOPs that are twice a MAC are halved. The
reasons are computed apart (counters_reasons.py); a disagreement is explained when they sum to it exactly.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.measure import machine

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "counters.json"
PAGE = ROOT / "docs" / "counters.md"
MARKED = re.compile(r"(<!-- counters: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
PACKAGES = ("thop", "fvcore", "ptflops", "torchinfo", "torch", "transformers", "pytorchcv")


@dataclass(frozen=True)
class Tool:
    """A counter: (model, input) -> what it prints and its parameters (None where it prints none)."""

    count: Callable[[Any, Any], tuple[int, int | None]]
    unit: str  # as the tool calls it
    per_mac: int = 1


def thop(model: Any, x: Any) -> tuple[int, int | None]:
    import thop

    macs, params = thop.profile(model, (x,), verbose=False)
    return int(macs), int(params)


def fvcore(model: Any, x: Any) -> tuple[int, int | None]:
    from fvcore.nn import FlopCountAnalysis

    found = FlopCountAnalysis(model, (x,)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(found.tracer_warnings("none").total()), None


def ptflops(model: Any, x: Any, backend: str = "pytorch") -> tuple[int, int | None]:
    from ptflops import get_model_complexity_info

    def make(shape: tuple[int, ...]) -> Any:
        return x if x.is_floating_point() else {"input_ids": x}

    with contextlib.redirect_stdout(io.StringIO()):
        macs, params = get_model_complexity_info(
            model,
            tuple(x.shape[1:]),
            print_per_layer_stat=False,
            as_strings=False,
            input_constructor=make,
            backend=backend,
        )
    return int(macs), int(params)


def ptflops_aten(model: Any, x: Any) -> tuple[int, int | None]:
    return ptflops(model, x, backend="aten")


def torchinfo(model: Any, x: Any) -> tuple[int, int | None]:
    from torchinfo import summary

    found = summary(model, input_data=[x], verbose=0)
    return int(found.total_mult_adds), int(found.total_params)


def torch_counter(model: Any, x: Any) -> tuple[int, int | None]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops()), None


TOOLS = {
    "thop": Tool(thop, "MACs"),
    "fvcore": Tool(fvcore, "flops (1 for a fused multiply-add)"),
    "ptflops": Tool(ptflops, "MACs"),
    "ptflops, aten": Tool(ptflops_aten, "MACs"),
    "torchinfo": Tool(torchinfo, "mult-adds"),
    "torch": Tool(torch_counter, "FLOPs (2 for a multiply-add)", per_mac=2),
}


def compared(name: str) -> dict[str, Any]:
    """One network, with the count of every tool."""
    from counters_networks import build
    from counters_reasons import REASONS, walk

    from gossamer.measure.profile import profile

    model, x = build(name)
    ours = profile(model, x)
    seen = walk(model, x, ours)
    tools = {}
    for tool, how in TOOLS.items():
        raw, params = how.count(*build(name))
        macs = raw // how.per_mac
        reasons = {reason: value for reason, value in REASONS[tool](seen).items() if value}
        tools[tool] = {
            "raw": raw,
            "unit": how.unit,
            "macs": macs,
            "difference": macs - ours.macs,
            "reasons": reasons,
            "unexplained": macs - ours.macs - sum(reasons.values()),
            "params": params,
        }
    return {
        "network": name,
        "input": list(x.shape),
        "params": ours.params,
        "macs": ours.macs,
        "bias_adds": ours.total.cost.bias_adds,
        "other_ops": dict(ours.other_ops),
        "uncounted": [item.op for item in ours.uncounted],
        "tools": tools,
    }


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pairs = [tool for row in rows for tool in row["tools"].values()]
    explained = sum(tool["unexplained"] == 0 for tool in pairs)
    plain = [row for row in rows if row["input"][1:] == [3, 224, 224] and "ViT" not in row["network"]]
    equal = sum(row["tools"]["torch"]["difference"] == 0 for row in plain)
    uncounted = sum(len(row["uncounted"]) for row in rows)
    return [
        {
            "name": "reasons",
            "claim": "every disagreement is explained to the unit",
            "ours": f"{explained} of {len(pairs)}",
            "holds": explained == len(pairs),
        },
        {
            "name": "torch",
            "claim": "half of the FLOPs of FlopCounterMode on networks of convolutions and linear layers",
            "ours": f"{equal} of {len(plain)}",
            "holds": equal == len(plain),
        },
        {
            "name": "uncounted",
            "claim": "no operator of these networks is without a rule",
            "ours": f"{uncounted} operators",
            "holds": uncounted == 0,
        },
    ]


def measured() -> dict[str, Any]:
    from counters_networks import NETWORKS

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for name in NETWORKS:
        rows.append(compared(name))
        print(f"{name}: {rows[-1]['macs']:,} MACs", file=sys.stderr)
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "schema": 1,
        "benchmark": "counters",
        "claims": claims(rows),
        "networks": rows,
        "machine": machine.describe(),
        "date": machine.today(),
        "versions": machine.versions() | found,
    }


def letters(result: dict[str, Any]) -> dict[str, str]:
    """A letter for every reason, in order of appearance."""
    reasons = dict.fromkeys(
        reason for row in result["networks"] for tool in row["tools"].values() for reason in tool["reasons"]
    )
    return {reason: chr(ord("a") + index) for index, reason in enumerate(reasons)}


def table(result: dict[str, Any]) -> str:
    """Ours in full, theirs as the difference and the letters of its reasons."""
    known = letters(result)
    lines = [
        f"| network | parameters | MACs | {' | '.join(TOOLS)} |",
        f"|---|---:|---:|{'---|' * len(TOOLS)}",
    ]
    for row in result["networks"]:
        cells = []
        for tool in row["tools"].values():
            share = 100 * tool["difference"] / row["macs"]
            number = f"{share:+.2f} %" if abs(share) >= 0.005 else f"{tool['difference']:+,}"
            marks = ", ".join(known[reason] for reason in tool["reasons"])
            cells.append(f"{number} ({marks})" if tool["difference"] else "equal")
        lines.append(f"| {row['network']} | {row['params']:,} | {row['macs']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def reasons(result: dict[str, Any]) -> str:
    """The letters, and the tools that each is about."""
    lines = ["| | reason | tools |", "|---|---|---|"]
    for reason, letter in letters(result).items():
        about = dict.fromkeys(
            name
            for row in result["networks"]
            for name, tool in row["tools"].items()
            if reason in tool["reasons"]
        )
        lines.append(f"| {letter} | {reason} | {'; '.join(about)} |")
    return "\n".join(lines)


def units(result: dict[str, Any]) -> str:
    """What each tool calls its number, and its version."""
    lines = ["| tool | version | its unit | networks where it equals ours |", "|---|---|---|---|"]
    for name in TOOLS:
        found = [row["tools"][name] for row in result["networks"]]
        equal = sum(tool["difference"] == 0 for tool in found)
        version = result["versions"][name.partition(",")[0]]
        lines.append(f"| {name} | {version} | {found[0]['unit']} | {equal} of {len(found)} |")
    return "\n".join(lines)


def params(result: dict[str, Any]) -> str:
    """Where a tool counts other parameters than ours."""
    lines = ["| network | ours | others |", "|---|---:|---|"]
    for row in result["networks"]:
        others = [
            f"{name} {tool['params']:,}"
            for name, tool in row["tools"].items()
            if tool["params"] not in (None, row["params"])
        ]
        if others:
            lines.append(f"| {row['network']} | {row['params']:,} | {'; '.join(others)} |")
    return "\n".join(lines)


def filled(text: str, result: dict[str, Any]) -> str:
    """The page with every marked place filled."""
    makers = {"table": table, "reasons": reasons, "units": units, "params": params}
    return MARKED.sub(lambda match: f"{match[1]}\n{makers[match[2]](result)}\n{match[3]}", text)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/counters.json")
    parser.add_argument("--page", action="store_true", help="only fill docs/counters.md")
    given = parser.parse_args()
    if given.page:
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
        return 0
    result = measured()
    if given.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for one in result["claims"]:
        print(f"{'holds ' if one['holds'] else 'FAILS '} {one['name']}: {one['ours']}  ({one['claim']})")
    return 0 if all(one["holds"] for one in result["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
