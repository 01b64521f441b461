"""`gossamer bench`: how fast and how right a packed file is, here and now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..report.units import accuracy_text, latency_text
from .output import Json, console, emit, naming, text


def bench(
    file: Annotated[Path, typer.Argument(help="A .goss file.", show_default=False)],
    data: Annotated[
        str | None, typer.Option(help="Also count right answers on this data's test split.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A .goss file to compare with; default: the same weights, dense.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of both; default: all cores.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Inputs in one call.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time for the timed calls.")] = 3.0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which kernel runs each layer, and why.")
    ] = False,
    json: Json = False,
) -> None:
    """Time the file against ONNX Runtime on dense float32, call by call in turn; measure its accuracy.

    Accuracy is measured in a fresh process in which torch does not exist.

    Example: [bold]gossamer bench model.goss --data mnist --threads 2 --explain[/bold]
    """
    from .. import measure

    machine = measure.machine.describe()
    threads = threads or int(str(machine["cores"]))
    answer: dict[str, Any] = {"file": str(file), "file_bytes": measure.file_bytes(file), "accuracy": None}
    with naming(file):
        if data is None:
            answer["latency"] = measure.against_onnxruntime(
                file, against=against, threads=threads, batch=batch, seconds=seconds
            )
        else:
            answer |= measure.fresh_figures(
                file, data, against=against, threads=threads, batch=batch, seconds=seconds, latency=True
            )
        if explain:
            from .. import runtime

            answer["layers"] = [
                asdict(row) for row in runtime.open(file, threads=threads, batch=batch).explain()
            ]
    answer |= {"machine": machine, "versions": measure.machine.versions(), "date": measure.machine.today()}
    if json:
        emit("bench", answer)
    else:
        show(answer)


def show(answer: dict[str, Any]) -> None:
    """The figures as text."""
    out = console()
    latency = answer["latency"]
    out.print(text(f"{answer['file']}: {answer['file_bytes']:,} bytes"))
    if answer["accuracy"]:
        out.print(text(f"test accuracy {accuracy_text(answer['accuracy'])}"))
    table = Table(
        title=f"latency, batch {latency['batch']}, {latency['threads']} thread(s)", title_justify="left"
    )
    table.add_column("")
    for heading in ("median ms", "5 %", "95 %", "minimum", "calls"):
        table.add_column(heading, justify="right")
    for key, name in (("ours", "gossamer"), ("onnxruntime_fp32", "ONNX Runtime fp32")):
        row = latency[key]
        figures = [f"{row[field]:.4g}" for field in ("median_ms", "p5_ms", "p95_ms", "min_ms")]
        table.add_row(name, *figures, f"{row['calls']:,}")
    out.print(table)
    out.print(text(latency_text(latency)))
    if "layers" in answer:
        layers = Table(title="kernels", title_justify="left")
        for heading in ("operator", "weight", "shape", "layout", "kernel", "why", "ms", "other ms"):
            layers.add_column(heading, overflow="fold", justify="right" if heading.endswith("ms") else "left")
        for row in answer["layers"]:
            shape = " x ".join(map(str, row["shape"]))
            times = ["" if row[key] is None else f"{row[key]:.3g}" for key in ("ms", "other_ms")]
            layers.add_row(
                row["op"], text(row["weight"]), shape, row["layout"], row["kernel"], row["why"], *times
            )
        out.print(layers)
