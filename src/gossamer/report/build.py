"""build: the report of a run, one JSON-ready dictionary (schema 1, described in docs/json.md).

Sizes and layers are read from the packed file, never from the model in memory: a layer's density counts what
the file rebuilds, and its histogram is that of the rebuilt weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import Inspection, Reader, inspect, layouts
from ..measure import machine as machines
from ..measure import weights

if TYPE_CHECKING:
    from torch import nn

    from ..export import Packed

SCHEMA = 1
BINS = 60


def report(
    *,
    recipe: Mapping[str, Any],
    original: nn.Module,
    model: nn.Module,
    stages: Sequence[Mapping[str, Any]],
    packed: Packed,
    figures: Mapping[str, Mapping[str, Any]],
    machine: Mapping[str, Any],
    fallback: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of the file `packed` that `recipe` made of the network `original`.

    model: the compressed network with its formats; what it still trains are survivors, centroids, biases.
    stages: what each step told. figures: {"before", "after"}, as `measure.fresh_figures` returns them. fallback: why
    integers do not ship, and their figures.
    """
    found = inspect(packed.path)
    size = weights(original)
    latency = figures["after"].get("latency")
    skipped = [entry for stage in stages for entry in stage.get("skipped", ())]
    return {
        "schema": SCHEMA,
        "model": recipe["model"],
        "data": recipe["data"],
        "recipe": dict(recipe),
        "seed": recipe.get("seed", 0),
        "before": {
            "parameters": size.parameters,
            "weights_bytes": size.bytes,
            "zstd_bytes": size.zstd_bytes,
            "accuracy": figures["before"]["accuracy"],
        },
        "after": {
            "parameters": sum(math.prod(tensor.shape) for tensor in found.tensors),
            "trained_values": sum(part.numel() for part in model.parameters()),
            "file_bytes": found.size_bytes,
            "overhead_bytes": found.overhead_bytes,
            "accuracy": figures["after"]["accuracy"],
            "max_logit_difference": packed.max_difference,
        },
        "ratios": {
            "size": size.bytes / found.size_bytes,
            "size_vs_zstd": (size.zstd_bytes or 0) / found.size_bytes,
            "latency": latency["ratio_of_medians"] if latency else None,
        },
        "latency": latency,
        "fallback": dict(fallback) if fallback else None,
        "stages": [_stage(stage) for stage in stages],
        "sensitivity": sensitivity(stages),
        "layers": layers(packed.path, found, dict(original.named_parameters())),
        "fields": fields(found),
        "skipped": list({(entry["name"], entry["reason"]): entry for entry in skipped}.values()),
        "machine": dict(machine),
        "versions": machines.versions(),
        "date": machines.today(),
    }


def sensitivity(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the last scan of single layers found (steps.sensitivity.Row), in order of execution; empty without one."""
    scans = [found for stage in stages if (found := (stage.get("notes") or {}).get("sensitivity"))]
    return [dict(row) for row in scans[-1]] if scans else []


def layers(file: str | Path, found: Inspection, before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per stored tensor: layout, density, bits, bytes, and histograms before and after."""
    entries = []
    with Reader(file) as reader:
        for row in found.tensors:
            after = layouts.rebuild(reader.tensor(row.name).stored)
            earlier = before.get(row.name)
            old = earlier.detach().cpu().float().numpy() if earlier is not None else None
            entries.append(
                {
                    "name": row.name,
                    "shape": list(row.shape),
                    "layout": row.layout,
                    "weights": int(after.size),
                    "density": float(np.count_nonzero(after) / max(after.size, 1)),
                    "bits_per_weight": row.bits_per_weight,
                    "bytes": row.size_bytes,
                    "histogram": histograms(
                        old if old is not None and old.shape == after.shape else None, after
                    ),
                }
            )
    return entries


def histograms(before: np.ndarray | None, after: np.ndarray) -> dict[str, Any]:
    """Counts of both in the same bins. Zeros are counted apart: nine in ten weights would hide all others."""
    arrays = [array for array in (before, after) if array is not None]
    reach = max((float(np.abs(array).max(initial=0.0)) for array in arrays), default=0.0) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)

    def counted(array: np.ndarray | None) -> dict[str, Any] | None:
        if array is None:
            return None
        counts, _ = np.histogram(array[array != 0], edges)
        zeros = int(array.size - np.count_nonzero(array))
        return {"edges": edges.tolist(), "counts": counts.tolist(), "zeros": zeros}

    return {"before": counted(before), "after": counted(after)}


def fields(found: Inspection) -> list[dict[str, Any]]:
    """Every field, then the parts of the head (tensor None); the bytes sum to the file's size."""
    rows: list[dict[str, Any]] = [
        {
            "tensor": tensor.name,
            "field": f"{field.path}.{field.name}" if field.path else field.name,
            "layout": field.layout,
            "coder": field.coder,
            "count": field.count,
            "width": field.bits,
            "bytes": field.size_bytes,
        }
        for tensor in found.tensors
        for field in tensor.fields
    ]
    return rows + [
        {
            "tensor": None,
            "field": row.name,
            "layout": None,
            "coder": None if row.name == "prelude" else "zstd",
            "count": row.raw_bytes,
            "width": 8,
            "bytes": row.size_bytes,
        }
        for row in found.head
    ]


def _stage(told: Mapping[str, Any]) -> dict[str, Any]:
    """A stage as the report shows it: what only a resumed run needs is left out."""
    kept = ("name", "options", "seconds", "validation_accuracy", "density", "skipped", "notes")
    history = [
        {
            "epoch": epoch.get("epoch", epoch.get("number")),
            **{k: v for k, v in epoch.items() if k != "number"},
        }
        for epoch in told.get("history", ())
    ]
    return {**{key: told.get(key) for key in kept}, "history": history}
