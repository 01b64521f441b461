"""Writes the measured figures into README.md and docs/*.md: `python docs/figures.py` (or `make figures`).

    <!-- results: PAPER -->          a table of all claims of papers/results/PAPER.json
    <!-- figure: PAPER | CLAIM -->   our figure of one claim, with its spread
    <!-- claims: BENCHMARK -->       a table of all claims of benchmarks/results/BENCHMARK.json
    <!-- networks: int8 -->          the networks of benchmarks/results/int8.json beside quantize_static
    ... what stands up to <!-- end --> is replaced

No figure in the documentation is typed by hand; a test fails when one is not that of the committed results.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/int8.md", "docs/kernels.md", "docs/methods.md")
MARKED = re.compile(
    r"(<!-- (results|figure|networks|claims): ([^|>]+?)(?: \| ([^>]+?))? -->).*?(<!-- end -->)", re.DOTALL
)


def filled(text: str, results: Path) -> str:
    """The text with every marked place filled from the folder of results."""

    def fill(match: re.Match[str]) -> str:
        opening, kind, paper, claim, closing = match.groups()
        benchmark = kind in ("networks", "claims")
        folder = results.parents[1] / "benchmarks" / "results" if benchmark else results
        path = folder / f"{paper}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        if kind == "networks":
            return f"{opening}\n{networks(known) if known else 'Not measured yet.'}\n{closing}"
        if kind == "claims":
            return f"{opening}\n{limits(known) if known else 'Not measured yet.'}\n{closing}"
        if kind == "results":
            body = table(known) if known else f"Not measured yet: `gossamer paper {paper}`."
            return f"{opening}\n{body}\n{closing}"
        return f"{opening}{figure(known, claim) if known else 'not measured yet'}{closing}"

    return MARKED.sub(fill, text)


def table(result: dict[str, Any]) -> str:
    """All claims of one paper, those that fail included."""
    rows = ["| claim | published | expected | ours | holds |", "|---|---|---|---|---|"]
    for row in result["claims"]:
        cells = (
            row["name"],
            row["published"] or "-",
            row["claim"],
            value(row),
            "yes" if row["holds"] else "**no**",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def limits(result: dict[str, Any]) -> str:
    """All claims of a benchmark, those that fail included; a claim without a limit is only told."""
    rows = ["| claim | expected | measured | holds |", "|---|---|---|---|"]
    for row in result["claims"]:
        known = [
            f"{words} {number(row[key])}"
            for key, words in (("at_least", "at least"), ("at_most", "at most"))
            if row.get(key) is not None
        ]
        holds = ("yes" if row["holds"] else "**no**") if known else ""
        rows.append(f"| {row['name']} | {', '.join(known) or '-'} | {number(row['value'])} | {holds} |")
    return "\n".join(rows)


def networks(result: dict[str, Any]) -> str:
    """Ours beside quantize_static, network by network; speeds with 1 and 2 threads."""
    rows = [
        "| network | float32 % | `quantize_static` % | ours % | bytes, theirs and ours | speed / theirs | speed / float32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["networks"].items():
        best = row["best_of_quantize_static"]
        smallest = min(entry["bytes"] for entry in row["quantize_static"])
        chosen = {key: row["chosen"][key] for key in ("weights", "observer")}
        ours = next(e["bytes"] for e in row["gossamer"] if chosen.items() <= e.items())
        cells = [
            name,
            f"{row['float32']['accuracy']:.2f}",
            f"{best['accuracy']:.2f} ({best['method']}, per {'channel' if best['per_channel'] else 'tensor'})",
            f"{row['accuracy']:.2f} ({chosen['weights']}, {chosen['observer']})",
            f"{smallest:,} to {ours:,}",
            _speeds(row["speed"], "ratio_to_quantize_static"),
            _speeds(row["speed"], "ratio_to_float32"),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _speeds(timed: list[dict[str, Any]], key: str) -> str:
    return ", ".join(f"{row[key]:.2f}" for row in timed) or "not measured"


def figure(result: dict[str, Any], claim: str) -> str:
    """One figure; an unknown claim is an error, so that a renamed one is noticed."""
    for row in result["claims"]:
        if row["name"] == claim:
            return value(row)
    raise SystemExit(f"papers/results/{result['paper']}.json has no claim {claim!r}.")


def value(row: dict[str, Any]) -> str:
    """`1.52 (1.47 to 1.58, 3 seeds)`."""
    if not row.get("spread") or row["spread"][0] == row["spread"][1]:
        return number(row["ours"])
    low, high = map(number, row["spread"])
    return f"{number(row['ours'])} ({low} to {high}, {row['seeds']} seeds)"


def number(x: float) -> str:
    """Four significant digits, whole numbers with separators."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.4g}"


def main() -> None:
    """Rewrite the pages in place."""
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        new = filled(text, ROOT / "papers" / "results")
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"updated {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
