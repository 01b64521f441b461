"""Figures with their units, the same in text and on the page. kB = 1,000 bytes, MB = 1,000,000 bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def bytes_text(count: float) -> str:
    """1,724,320 -> `1.72 MB`; three significant digits, whole bytes below 1,000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:
            return f"{_three(count / size)} {unit}"
    return f"{count:.0f} B"


def count_text(count: float) -> str:
    """431,080 -> `431 k`; whole numbers below 10,000."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= max(0.9995 * size, 9_999.5):
            return f"{_three(count / size)} {unit}"
    return f"{count:,.0f}"


def ms_text(milliseconds: float) -> str:
    """0.0423 -> `42.3 µs`."""
    if milliseconds < 0.9995:
        return f"{_three(milliseconds * 1e3)} µs"
    return f"{_three(milliseconds)} ms" if milliseconds < 999.5 else f"{_three(milliseconds / 1e3)} s"


def seconds_text(seconds: float) -> str:
    """4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def accuracy_text(accuracy: Mapping[str, Any]) -> str:
    """`98.95 % (98.35 to 99.33)`: value and 95 % interval."""
    return f"{100 * accuracy['value']:.2f} % ({interval_text(accuracy)})"


def interval_text(accuracy: Mapping[str, Any]) -> str:
    """`98.35 to 99.33`: the ends of the 95 % interval, in percent."""
    return f"{100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f}"


def change_text(error: float | None) -> str:
    """A squared error as a share of the outputs: 0.0004 -> `2.00 %`; nothing where it was not measured."""
    return "" if error is None else f"{_three(100 * max(error, 0.0) ** 0.5)} %"


def latency_text(latency: Mapping[str, Any]) -> str:
    """The comparison as a sentence; where the ranges meet, no one is called faster."""
    ratio = latency["ratio_of_medians"]
    where = f"batch {latency['batch']}, {latency['threads']} thread{'s' if latency['threads'] > 1 else ''}"
    times = (
        f"{ms_text(latency['ours']['median_ms'])} against {ms_text(latency['onnxruntime_fp32']['median_ms'])}"
    )
    if latency.get("overlap"):
        verdict = "no clear difference to ONNX Runtime fp32"
    elif ratio >= 1:
        verdict = f"{ratio:.2f} times as fast as ONNX Runtime fp32"
    else:
        verdict = f"{1 / ratio:.2f} times as slow as ONNX Runtime fp32"
    return f"{verdict} ({times}, medians, {where})"


def layout_text(layout: str) -> str:
    """`sparse(values=codebook(centroids=dense))` -> `sparse › codebook`: the tree without float leaves."""
    names = [part for part in re.split(r"\w+=|[(), ]+", layout) if part]
    return " › ".join(name for index, name in enumerate(names) if not index or name != "dense")


def _three(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
