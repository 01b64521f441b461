"""A report as a run writes it, with as many layers as wanted; every sum is consistent."""

from __future__ import annotations

from typing import Any

import numpy as np

from gossamer.measure import Accuracy, machine
from gossamer.report.build import histograms

LENET5 = {
    "conv1.weight": (20, 1, 5, 5),
    "conv1.bias": (20,),
    "conv2.weight": (50, 20, 5, 5),
    "conv2.bias": (50,),
    "ip1.weight": (500, 800),
    "ip1.bias": (500,),
    "ip2.weight": (10, 500),
    "ip2.bias": (10,),
}


def sample(shapes: dict[str, tuple[int, ...]] | None = None, *, latency: bool = True) -> dict[str, Any]:
    """LeNet-5 on MNIST unless `shapes` says otherwise."""
    rng = np.random.default_rng(0)
    layers, fields = [], []
    for name, shape in (shapes or LENET5).items():
        before = rng.normal(0, 0.05, shape).astype(np.float32)
        sparse = len(shape) > 1
        cut = np.quantile(np.abs(before), 0.9) if sparse else 0
        after = np.where(np.abs(before) > cut, np.round(before / 0.012) * np.float32(0.012), 0).astype(
            np.float32
        )
        after = after if sparse else before
        parts = [("gaps", "sparse", "rans", 6), ("values.codes", "codebook", "rans", 5)] if sparse else []
        parts.append(("values.centroids" if sparse else "values", "dense", "raw", 32))
        sizes = []
        for field, layout, coder, width in parts:
            count = 32 if field.endswith("centroids") else int(np.count_nonzero(after))
            sizes.append(count * width // 8 + 4)
            fields.append(
                {
                    "tensor": name,
                    "field": field,
                    "layout": layout,
                    "coder": coder,
                    "count": count,
                    "width": width,
                }
                | {"bytes": sizes[-1]}
            )
        layers.append(
            {
                "name": name,
                "shape": list(shape),
                "layout": "sparse(values=codebook(centroids=dense))" if sparse else "dense",
                "weights": int(after.size),
                "density": np.count_nonzero(after) / after.size,
                "bits_per_weight": 8 * sum(sizes) / after.size,
                "bytes": sum(sizes),
                "histogram": histograms(before, after),
            }
        )
    for name, size in (("prelude", 14), ("header", 96), ("graph", 288), ("metadata", 61)):
        coder = None if name == "prelude" else "zstd"
        fields.append(
            {"tensor": None, "field": name, "layout": None, "coder": coder, "count": 2 * size}
            | {"width": 8, "bytes": size}
        )
    total = sum(field["bytes"] for field in fields)
    dense = 4 * sum(layer["weights"] for layer in layers)
    history = [
        {"epoch": i + 1, "train_loss": 0.3 / (i + 1), "validation_loss": 0.2, "lr": 0.01, "seconds": 4.2}
        | {"validation_accuracy": 0.992 - 0.05 / (i + 1) ** 2}
        for i in range(8)
    ]
    stages = [
        ("Train", {"epochs": 8}, 0.9915, 1.0, history),
        ("Prune", {"density": {"conv1": 0.66, "ip1": 0.08}}, 0.9721, 0.1, []),
        ("Finetune", {"epochs": 5, "teacher": "original"}, 0.9913, 0.1, history[3:]),
        ("Share", {"bits": {"conv": 8, "ip": 5}}, 0.9889, 0.1, []),
        ("Finetune", {"epochs": 3}, 0.9912, 0.1, history[5:]),
    ]
    one = {
        "median_ms": 0.142,
        "p5_ms": 0.131,
        "p95_ms": 0.19,
        "min_ms": 0.128,
        "calls": 9120,
        "medians_ms": [0.139, 0.145],
    }
    two = {
        "median_ms": 0.137,
        "p5_ms": 0.129,
        "p95_ms": 0.17,
        "min_ms": 0.127,
        "calls": 9120,
        "medians_ms": [0.135, 0.14],
    }
    compared = {"threads": 2, "batch": 1, "ours": one, "onnxruntime_fp32": two}
    compared |= {"ratio_of_medians": two["median_ms"] / one["median_ms"], "overlap": True}
    return {
        "schema": 1,
        "model": "lenet5",
        "data": "mnist",
        "recipe": {
            "name": "deep-compression",
            "model": "lenet5",
            "data": "mnist",
            "seed": 0,
            "steps": [{name: options} for name, options, *_ in stages],
        },
        "seed": 0,
        "before": {
            "parameters": dense // 4,
            "weights_bytes": dense,
            "zstd_bytes": int(0.92 * dense),
            "accuracy": Accuracy.of(9907, 10000).to_dict(),
        },
        "after": {
            "parameters": dense // 4,
            "trained_values": dense // 40,
            "file_bytes": total,
            "overhead_bytes": 459,
            "accuracy": Accuracy.of(9904, 10000).to_dict(),
            "max_logit_difference": 3.8e-6,
        },
        "ratios": {
            "size": dense / total,
            "size_vs_zstd": 0.92 * dense / total,
            "latency": compared["ratio_of_medians"] if latency else None,
        },
        "latency": compared if latency else None,
        "stages": [
            {
                "name": n,
                "options": o,
                "seconds": 31.7,
                "validation_accuracy": a,
                "density": d,
                "skipped": [],
                "history": h,
            }
            for n, o, a, d, h in stages
        ],
        "layers": layers,
        "fields": fields,
        "skipped": [{"name": "conv1.bias", "reason": "has one dimension; biases stay dense"}],
        "machine": machine.describe(),
        "versions": machine.versions(),
        "date": "2026-01-31T12:00:00Z",
    }
