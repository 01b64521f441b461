"""The report as text: what a run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .units import bytes_text, change_text, interval_text, latency_text, ms_text

SKIPPED_SHOWN = 8
SENSITIVE_SHOWN = 10


def render(report: Mapping[str, Any], *, html: Path | None = None, file: Path | None = None) -> Group:
    """The table of a report, the skipped layers with reasons, and where the results are."""
    parts: list[RenderableType] = ["", _table(report)]
    latency = report.get("latency")
    if latency:
        parts.append(Text(f"Latency: {latency_text(latency)}"))
    if report.get("fallback"):
        parts.append(Text(f"Floats: {report['fallback']['reason']}. keep_integers keeps them."))
    if report.get("sensitivity"):
        parts.append(_sensitivity(report["sensitivity"]))
    skipped = report["skipped"]
    parts.append(Text(f"Skipped layers: {'none' if not skipped else len(skipped)}"))
    parts += [Text(f"  {entry['name']}: {entry['reason']}") for entry in skipped[:SKIPPED_SHOWN]]
    if len(skipped) > SKIPPED_SHOWN:
        parts.append(Text(f"  and {len(skipped) - SKIPPED_SHOWN} more in the report"))
    for label, path in (("File", file), ("Report", html)):
        if path is not None:
            parts.append(Text(f"{label}: {path}", overflow="fold"))
    return Group(*parts)


def _table(report: Mapping[str, Any]) -> Table:
    before, after, ratios = report["before"], report["after"], report["ratios"]
    table = Table(
        title=Text(f"{report['model']} on {report['data']}"), title_justify="left", title_style="bold"
    )
    table.add_column("")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_column("ratio", justify="right", style="bold")
    size = bytes_text(after["file_bytes"])
    table.add_row(
        "size: float32 weights", bytes_text(before["weights_bytes"]), size, f"{ratios['size']:.1f}x"
    )
    if before.get("zstd_bytes"):
        ratio = f"{ratios['size_vs_zstd']:.1f}x"
        table.add_row("size: the same in zstd -19", bytes_text(before["zstd_bytes"]), size, ratio)
    first, last = before["accuracy"], after["accuracy"]
    change = f"{100 * (last['value'] - first['value']):+.2f} points"
    table.add_row("test accuracy", *(f"{100 * row['value']:.2f} %" for row in (first, last)), change)
    table.add_row("  95 % interval", *(interval_text(row) for row in (first, last)), style="dim")
    latency = report.get("latency")
    if latency:
        theirs, ours = latency["onnxruntime_fp32"]["median_ms"], latency["ours"]["median_ms"]
        table.add_row(
            "latency (ONNX Runtime fp32)",
            ms_text(theirs),
            ms_text(ours),
            f"{latency['ratio_of_medians']:.2f}x",
        )
    return table


def _sensitivity(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The layers whose rounding changes the outputs most."""
    title = "change of the outputs with one layer rounded alone"
    if len(rows) > SENSITIVE_SHOWN:
        title += f" ({SENSITIVE_SHOWN} of {len(rows)} layers)"
    table = Table(title=title, title_justify="left")
    table.add_column("layer", overflow="fold")
    for heading in ("weights", "activations", "both", "accuracy"):
        table.add_column(heading, justify="right")
    for row in sorted(rows, key=lambda row: -row["both"])[:SENSITIVE_SHOWN]:
        changes = [change_text(row[key]) for key in ("weights", "activations", "both")]
        table.add_row(Text(row["layer"]), *changes, f"{0 - row['drop_points']:+.2f} points")
    return table
