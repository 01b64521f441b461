"""`gossamer compare`: two networks side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..report.units import ms_text
from .output import Json, console, emit, text
from .subject import Input, subject

if TYPE_CHECKING:
    from ..measure import Comparison

_MEANING = {
    "file_bytes": "bytes of the file",
    "params": "parameters",
    "nonzero": "parameters that are not zero",
    "dense_bytes": "bytes of the dense weights",
    "macs": "MACs",
    "flops": "FLOPs",
    "other_ops": "other operations",
    "traffic_bytes": "bytes moved",
    "peak_activation_bytes": "peak activation bytes",
    "accuracy": "accuracy on the test split",
    "latency_ms": "latency ms (median)",
}


def compare(
    a: Annotated[str, typer.Argument(help="A .goss or .onnx file, a report (.json), or a model.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    input_: Input = None,
    data: Annotated[
        str | None, typer.Option(help="Also count right answers on this data's test split.")
    ] = None,
    latency: Annotated[bool, typer.Option(help="Time both in turn; --no-latency only counts.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time for the timed calls.")] = 3.0,
    json: Json = False,
) -> None:
    """Put the figures of two networks beside each other: bytes, MACs, memory, latency, accuracy.

    Packed files run in Gossamer's session, everything else in ONNX Runtime, call by call in turn.

    Example: [bold]gossamer compare resnet20 model.goss --data cifar10[/bold]
    """
    from .. import measure
    from ..data import load_data

    loaded = load_data(data) if data is not None else None
    first, example = subject(a, input_)
    second, other = subject(b, input_)
    if example is None:
        example = other
    found = measure.compare(
        first,
        second,
        example,
        data=loaded,
        latency=latency,
        threads=threads,
        seconds=seconds,
        names=(a, b),
    )
    if json:
        emit("compare", found.to_dict() | {"machine": measure.machine.describe()})
    else:
        show(found)


def show(found: Comparison) -> None:
    """One line per figure; the ratio says how many times less B has."""
    out = console()
    table = Table()
    table.add_column("")
    for heading in ("A", "B", "A / B"):
        table.add_column(heading, justify="right")
    for line in found.lines:
        ratio = "" if line.ratio is None or line.figure == "accuracy" else f"{line.ratio:.3g}x"
        table.add_row(
            _MEANING[line.figure], *(_shown(line.figure, value) for value in (line.a, line.b)), ratio
        )
    out.print(text(f"A: {found.a}"))
    out.print(text(f"B: {found.b}"))
    out.print(table)
    if found.latency:
        a, b = found.latency["a"].median_ms, found.latency["b"].median_ms
        if found.overlap:
            said = "no clear difference in latency"
        else:
            said = f"B is {a / b:.2f} times as fast" if a > b else f"B is {b / a:.2f} times as slow"
        out.print(f"{said} ({ms_text(a)} against {ms_text(b)}, {found.threads} thread(s), taking turns)")
    for note in found.notes:
        out.print(text(f"note: {note}"))


def _shown(figure: str, value: float | None) -> str:
    if value is None:
        return "-"
    if figure == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:.4g}" if figure == "latency_ms" else f"{value:,.0f}"
