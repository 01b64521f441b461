"""Pictures of a report as inline SVG: crisp at any size, coloured by the page's style sheet, no script.

Every function returns one `<svg>` element as text. Text from the report is escaped here, so the page may
insert the result as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .units import bytes_text

WIDTH = 760


def stages(report: Mapping[str, Any]) -> str:
    """Validation accuracy through the stages: a dot after each stage, a thin line through its epochs."""
    told = [stage for stage in report["stages"] if stage.get("validation_accuracy") is not None]
    if not told:
        return ""
    height, left, right, top, bottom = 270, 58, 20, 26, 50
    widths = [max(2.0, min(len(stage["history"]), 40)) for stage in told]
    unit = (WIDTH - left - right) / sum(widths)
    values = [stage["validation_accuracy"] for stage in told]
    values += [
        epoch["validation_accuracy"]
        for stage in told
        for epoch in stage["history"]
        if _finite(epoch, "validation_accuracy")
    ]
    ticks = _ticks(*_window(values, [stage["validation_accuracy"] for stage in told]))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (max(value, low) - low) / (high - low))

    parts = []
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(_text(left - 8, y(tick) + 4, _percent(tick, ticks), anchor="end"))
    start, ends = float(left), []
    dots: list[tuple[float, float, str, float]] = []
    for index, (stage, width) in enumerate(zip(told, widths, strict=True)):
        end = start + width * unit
        if index % 2:
            parts.append(
                f'<rect class="band" x="{start:.1f}" y="{top}" width="{end - start:.1f}" '
                f'height="{height - top - bottom}"/>'
            )
        epochs = [
            epoch["validation_accuracy"]
            for epoch in stage["history"]
            if _finite(epoch, "validation_accuracy")
        ]
        if epochs:
            step = (end - start) / len(epochs)
            first = next((i for i, value in enumerate(epochs) if value >= low), len(epochs) - 1)
            points = [(start + (i + 1) * step, y(value)) for i, value in enumerate(epochs)]
            points = points[max(first - 1, 0) :]  # the line enters from below the window
            points = [dots[-1][:2], *points] if dots else points
            line = " ".join(f"{x:.1f},{at:.1f}" for x, at in points)
            parts.append(f'<polyline class="epochs" points="{line}"/>')
        value = stage["validation_accuracy"]
        dots.append((end, y(value), f"{index + 1} {stage['name']}", value))
        middle = (start + end) / 2
        room = max(3, int((end - start) / 7))
        parts.append(_text(middle, height - bottom + 20, str(index + 1), "label", anchor="middle"))
        if room >= len(stage["name"]):
            parts.append(_text(middle, height - bottom + 37, stage["name"], anchor="middle"))
        ends.append(f"{end:.1f},{y(value):.1f}")
        start = end
    parts.append(f'<polyline class="stages" points="{" ".join(ends)}"/>')
    for x, at, name, value in dots:
        title = f"{name}: {100 * value:.2f} %"
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{at:.1f}" r="4.5"><title>{escape(title)}</title></circle>'
        )
    x, at, _, value = dots[-1]
    above = at - 10 if at - 10 > top else at + 18
    parts.append(_text(x, above, f"{100 * value:.2f} %", "value", anchor="end"))
    parts.append(_text(left - 50, top - 12, "validation accuracy"))
    spoken = "; ".join(f"{name} {100 * value:.2f} %" for _, _, name, value in dots)
    return _svg(WIDTH, height, f"Validation accuracy after each stage: {spoken}", parts)


def histogram(entry: Mapping[str, Any]) -> str:
    """The weights of one layer before (area) and after (bars), each drawn to its own peak, zeros left out."""
    width, height, bottom = 240, 96, 18
    drawn = entry["histogram"]
    edges = (drawn["after"] or drawn["before"])["edges"]
    parts = []
    for when, kind in (("before", "before"), ("after", "after")):
        counted = drawn[when]
        if not counted or not any(counted["counts"]):
            continue
        counts = counted["counts"]
        peak, step = max(counts), width / len(counts)
        tops = [(height - bottom) * (1 - count / peak) for count in counts]
        if kind == "before":
            outline = "".join(f"V{top:.1f}h{step:.3f}" for top in tops)
            parts.append(f'<path class="before" d="M0,{height - bottom}{outline}V{height - bottom}Z"/>')
        else:
            bars = "".join(
                f"M{i * step:.2f},{height - bottom}V{top:.1f}h{step * 0.72:.2f}V{height - bottom}Z"
                for i, top in enumerate(tops)
                if counts[i]
            )
            parts.append(f'<path class="after" d="{bars}"/>')
    parts.append(f'<line class="axis" x1="0" x2="{width}" y1="{height - bottom}" y2="{height - bottom}"/>')
    for x, anchor, value in ((0, "start", edges[0]), (width / 2, "middle", 0.0), (width, "end", edges[-1])):
        parts.append(_text(x, height - 4, _number(value), anchor=anchor))
    return _svg(width, height, f"Histogram of {entry['name']} before and after", parts)


def sensitivity(rows: Sequence[Mapping[str, Any]]) -> str:
    """A bar for each layer in order of execution: how far the outputs move when it alone is rounded, in percent."""
    if not rows:
        return ""
    height, left, top, bottom = 190, 58, 26, 26
    values = [100 * math.sqrt(max(row["both"], 0.0)) for row in rows]
    ticks = _ticks(0.0, max(values))
    unit = (WIDTH - left - 20) / len(rows)
    parts = []

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / ticks[-1])

    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{WIDTH - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        )
        parts.append(_text(left - 8, y(tick) + 4, f"{tick:g} %", anchor="end"))
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        title = escape(f"{row['layer']}: {value:.2g} %")
        parts.append(
            f'<rect class="after" x="{left + (index + 0.1) * unit:.1f}" y="{y(value):.1f}" '
            f'width="{0.8 * unit:.1f}" height="{height - bottom - y(value):.1f}"><title>{title}</title></rect>'
        )
    parts.append(_text(left - 50, top - 12, "change of the outputs, one layer rounded alone"))
    parts.append(_text(left, height - 6, rows[0]["layer"]))
    if len(rows) > 1:
        parts.append(_text(WIDTH - 20, height - 6, rows[-1]["layer"], anchor="end"))
    worst = max(range(len(rows)), key=values.__getitem__)
    spoken = f"Change of the outputs by layer: most at {rows[worst]['layer']}, {values[worst]:.2g} %"
    return _svg(WIDTH, height, spoken, parts)


def shares(parts: Sequence[tuple[str, int]]) -> str:
    """One bar of the file's bytes, cut into parts (name, bytes), in the colours c0, c1, ... of the page."""
    total = sum(size for _, size in parts) or 1
    height, x, drawn = 34, 0.0, []
    for index, (name, size) in enumerate(parts):
        width = WIDTH * size / total
        title = escape(f"{name}: {bytes_text(size)}, {size / total:.1%}")
        drawn.append(
            f'<rect class="c{index}" x="{x:.2f}" y="0" width="{max(width - 1.2, 0.4):.2f}" '
            f'height="{height}" rx="2">'
            f"<title>{title}</title></rect>"
        )
        x += width
    spoken = "; ".join(f"{name} {size / total:.1%}" for name, size in parts)
    return _svg(WIDTH, height, f"Where the bytes go: {spoken}", drawn, stretch=True)


def _text(x: float, y: float, said: str, style: str = "tick", *, anchor: str = "start") -> str:
    return f'<text class="{style}" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(said)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str], *, stretch: bool = False) -> str:
    ratio = ' preserveAspectRatio="none"' if stretch else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img"{ratio} aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _window(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """The range to draw. One bad first epoch may not flatten all else: at most 5 times the stages' range."""
    high = max(values)
    spread = max(high - min(ends), 0.002)
    return max(min(values), high - 5 * spread, 0.0), min(high + 0.1 * spread, 1.0)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around the range."""
    raw = max(high - low, 1e-3) / 5
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(base * factor for factor in (1, 2, 5, 10) if base * factor >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _percent(value: float, ticks: Sequence[float]) -> str:
    step = 100 * (ticks[1] - ticks[0])
    digits = 0 if step >= 0.999 else 1 if step >= 0.0999 else 2
    return f"{100 * value:.{digits}f} %"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}".replace("-", "−")


def _finite(epoch: Mapping[str, Any], key: str) -> bool:
    value = epoch.get(key)
    return value is not None and math.isfinite(value)
