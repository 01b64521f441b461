"""The report as one HTML page: style, pictures and figures in one file, no script, no request, no cookie.

It follows the reader's light or dark mode, prints, and works from the keyboard; every picture has a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import GossamerError
from . import plots, units

HISTOGRAMS_SHOWN = 12
SHARES_SHOWN = 7


def write(report: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page, whole or not at all."""
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(page(report), encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise GossamerError(
            f"{target}: the report could not be written ({error.strerror}). Free some space, then run again."
        ) from error
    return target


def page(report: Mapping[str, Any]) -> str:
    """The page as text."""
    import jinja2
    import yaml

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "bytes": units.bytes_text,
        "count": units.count_text,
        "ms": units.ms_text,
        "seconds": units.seconds_text,
        "accuracy": units.accuracy_text,
        "options": _options,
        "change": units.change_text,
        "layout": units.layout_text,
        "breakable": _breakable,
        "shape": lambda shape: " × ".join(map(str, shape)) or "scalar",
    }
    text = (resources.files(__package__) / "page.html.j2").read_text(encoding="utf-8")
    recipe = yaml.safe_dump(_plain(report["recipe"]), sort_keys=False, allow_unicode=True, width=88)
    kinds = kinds_of(report["fields"])
    layers = report["layers"]
    wide = [layer for layer in layers if len(layer["shape"]) > 1]  # the others are biases and norms
    pictured = sorted(wide, key=lambda layer: -layer["weights"])[:HISTOGRAMS_SHOWN]
    shown = {layer["name"] for layer in pictured}
    latency = report.get("latency")
    return environment.from_string(text).render(
        r=report,
        kinds=kinds,
        total=report["after"]["file_bytes"],
        bits_axis=_bits_axis(wide),
        recipe=recipe,
        latency_sentence=units.latency_text(latency) if latency else None,
        stages_svg=_markup(plots.stages(report)),
        sensitivity_svg=_markup(plots.sensitivity(report.get("sensitivity") or [])),
        shares_svg=_markup(plots.shares([(kind["name"], kind["bytes"]) for kind in kinds])),
        histograms=[(layer, _markup(plots.histogram(layer))) for layer in wide if layer["name"] in shown],
        more_histograms=[
            (layer, _markup(plots.histogram(layer))) for layer in wide if layer["name"] not in shown
        ],
        seconds=sum(stage["seconds"] or 0 for stage in report["stages"]),
    )


def kinds_of(fields: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The file's bytes by kind of field and coder, largest first; small kinds are summed at the end."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for field in fields:
        name = field["field"].rpartition(".")[2]
        coder = field["coder"] or "as it is"
        if not field["tensor"]:
            name = f"{name} of the file" if name != "graph" else "graph (ONNX)"
        row = sums.setdefault(
            (name, coder), {"name": name, "coder": coder, "bytes": 0, "fields": 0, "values": 0}
        )
        row["bytes"] += field["bytes"]
        row["fields"] += 1
        row["values"] += field["count"]
    rows = sorted(sums.values(), key=lambda row: -row["bytes"])
    if len(rows) > SHARES_SHOWN + 1:
        rest = rows[SHARES_SHOWN:]
        coders = ", ".join(dict.fromkeys(row["coder"] for row in rest))
        others: dict[str, Any] = {"name": "others", "coder": coders}
        others |= {key: sum(row[key] for row in rest) for key in ("bytes", "fields", "values")}
        rows = [*rows[:SHARES_SHOWN], others]
    return rows


def _bits_axis(layers: Sequence[Mapping[str, Any]]) -> float:
    """Full length of the bits bars: the most among the tensors that hold most weights."""
    total = sum(layer["weights"] for layer in layers)
    heavy = [layer["bits_per_weight"] for layer in layers if layer["weights"] >= 0.002 * total]
    return max(heavy, default=1.0) or 1.0


def _options(options: Mapping[str, Any] | None) -> str:
    """`sparsity 0.9, epochs 3`."""
    shown = []
    for key, value in (options or {}).items():
        if isinstance(value, Mapping):
            shown.append(f"{key}: {', '.join(f'{name} {item}' for name, item in value.items())}")
        else:
            shown.append(f"{key} {', '.join(map(str, value)) if isinstance(value, list | tuple) else value}")
    return "; ".join(shown)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that YAML needs no tags."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _breakable(name: str) -> Any:
    """A dotted name that may break after its dots and underscores."""
    import markupsafe

    broken = re.sub(r"([._/])", "\\1<wbr>", str(markupsafe.escape(name)))
    return markupsafe.Markup(broken)


def _markup(svg: str) -> Any:
    """An SVG of `plots`, which escapes its own texts."""
    import markupsafe

    return markupsafe.Markup(svg)
