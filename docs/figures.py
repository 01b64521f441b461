"""Writes the measured figures into README.md and docs/*.md: `python docs/figures.py` (or `make figures`).

    <!-- results: PAPER -->          a table of all claims of papers/results/PAPER.json
    <!-- figure: PAPER | CLAIM -->   our figure of one claim, with its spread
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
PAGES = ("README.md", "docs/int8.md", "docs/methods.md")
MARKED = re.compile(r"(<!-- (results|figure): ([^|>]+?)(?: \| ([^>]+?))? -->).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, results: Path) -> str:
    """The text with every marked place filled from the folder of results."""

    def fill(match: re.Match[str]) -> str:
        opening, kind, paper, claim, closing = match.groups()
        path = results / f"{paper}.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
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
