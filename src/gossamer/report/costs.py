"""Costs as a picture: MACs, parameters and latency of each layer, and the activation memory over time.

Layers stand in order of execution. The file's ending chooses the format (.svg, .png, .pdf); the text of an .svg
stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .units import bytes_text, count_text

if TYPE_CHECKING:
    from ..measure import Profile

_NAMED = 60  # more layers than this, and only some are named
_BAR, _ACCENT, _GRID = "#0f766e", "#b45309", "#d4d4d4"


def save(profile: Profile, path: str | Path) -> None:
    """Write the picture of a profile."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = profile.rows
    panels: list[tuple[str, list[float], Any]] = [
        ("MACs", [row.cost.macs for row in rows], count_text),
        ("parameters", [row.params for row in rows], count_text),
    ]
    if any(row.latency_ms is not None for row in rows):
        panels.append(("latency, ms", [row.latency_ms or 0.0 for row in rows], lambda value: f"{value:.3g}"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gossamer", "font.size": 9}):
        width = min(max(7.0, 0.16 * len(rows) + 2), 18.0)
        figure = Figure(figsize=(width, 1.75 * len(panels) + 2.9), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels) + 1, 1)
        for axis, (title, values, shown) in zip(axes[:-1], panels, strict=True):
            _bars(axis, title, values, shown)
            axis.set_xticks([])
        _names(axes[len(panels) - 1], [row.name or "(model)" for row in rows])
        _timeline(axes[-1], profile)
        figure.suptitle(
            f"{profile.name}: {count_text(profile.macs)} MACs, {count_text(profile.params)} parameters"
        )
        figure.savefig(str(path), metadata={"Date": None} if str(path).endswith(".svg") else None)


def _bars(axis: Any, title: str, values: Sequence[float], shown: Any) -> None:
    axis.bar(range(len(values)), values, color=_BAR, width=0.8)
    axis.set_title(f"{title} per layer", loc="left", fontsize=9)
    axis.yaxis.set_major_formatter(lambda value, _: shown(value))
    _plain(axis)
    axis.set_xlim(-0.7, len(values) - 0.3)


def _names(axis: Any, names: Sequence[str]) -> None:
    step = max(1, -(-len(names) // _NAMED))
    places = range(0, len(names), step)
    axis.set_xticks(list(places), [names[place] for place in places], rotation=90, fontsize=7)


def _timeline(axis: Any, profile: Profile) -> None:
    memory = profile.memory
    line = memory.timeline
    axis.fill_between(range(len(line)), line, step="mid", color=_BAR, alpha=0.35, linewidth=0)
    axis.step(range(len(line)), line, where="mid", color=_BAR, linewidth=1)
    axis.axhline(memory.lower_bound_bytes, color=_ACCENT, linewidth=0.8, linestyle="--")
    if memory.at >= 0:
        axis.plot([memory.at], [memory.peak_bytes], "o", color=_ACCENT, markersize=4)
    said = f"peak {bytes_text(memory.peak_bytes)} at {profile.peak_layer or '(model)'}"
    axis.set_title(
        f"activations alive during each operation: {said}; dashed: no order needs less",
        loc="left",
        fontsize=9,
    )
    axis.set_xlabel("operation")
    axis.set_ylim(0, 1.1 * max(memory.peak_bytes, 1))
    axis.set_xlim(-0.5, max(len(line) - 0.5, 0.5))
    axis.yaxis.set_major_formatter(lambda value, _: bytes_text(value))
    _plain(axis)


def _plain(axis: Any) -> None:
    axis.grid(axis="y", color=_GRID, linewidth=0.5)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)
