"""Sensitivity as a picture: how far the outputs move when one layer alone is rounded, and the accuracy that costs.

Layers stand in order of execution; bars are the root of the relative squared error, on a scale of powers of ten. The file's
ending chooses the format (.svg, .png, .pdf); the text of an .svg stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .costs import _BAR, _names, _plain

_KINDS = (("weights", "#b45309"), ("activations", "#5b6fb5"), ("both", _BAR))


def save(rows: Sequence[Mapping[str, Any]], path: str | Path, *, name: str = "") -> None:
    """Write the picture of a scan: rows of a report's "sensitivity"."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gossamer", "font.size": 9}):
        width = min(max(7.0, 0.24 * len(rows) + 2), 18.0)
        figure = Figure(figsize=(width, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1)
        shown = [(kind, color) for kind, color in _KINDS if any(row[kind] is not None for row in rows)]
        bar = 0.8 / len(shown)
        for at, (kind, color) in enumerate(shown):
            places = [index - 0.4 + (at + 0.5) * bar for index in range(len(rows))]
            changes = [100 * max(row[kind] or 0.0, 0.0) ** 0.5 for row in rows]
            above.bar(places, changes, width=bar, color=color, label=kind)
        above.set_title("change of the outputs, %, with this layer alone rounded", loc="left", fontsize=9)
        if any(row["both"] > 0 for row in rows):
            above.set_yscale("log")
            above.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        if len(shown) > 1:
            above.legend(
                frameon=False,
                ncols=len(shown),
                loc="lower right",
                bbox_to_anchor=(1, 1),
                borderaxespad=0,
                fontsize=8,
            )
        below.bar(range(len(rows)), [0 - row["drop_points"] for row in rows], color=_BAR, width=0.8)
        below.set_title("accuracy on samples of the validation split, points", loc="left", fontsize=9)
        for axis in (above, below):
            _plain(axis)
            axis.set_xlim(-0.7, len(rows) - 0.3)
        above.set_xticks([])
        _names(below, [row["layer"] for row in rows])
        figure.suptitle(f"{name}: sensitivity of layers" if name else "sensitivity of layers")
        figure.savefig(str(path), metadata={"Date": None} if str(path).endswith(".svg") else None)
