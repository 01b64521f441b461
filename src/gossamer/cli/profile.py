"""`gossamer profile`: what a network costs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..report.units import bytes_text, count_text, ms_text
from .output import Json, console, emit, naming, notice, text
from .subject import Input, subject

if TYPE_CHECKING:
    from ..measure import Profile, Row


def profile(
    model: Annotated[
        str,
        typer.Argument(help="A .goss or .onnx file, a built-in name, module:function or file.py:function."),
    ],
    input_: Input = None,
    weights: Annotated[
        str | None, typer.Option(help="A safetensors or torch file, or a name in the data folder.")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="Largest first by this column: macs, params, traffic_bytes, latency_ms, ...")
    ] = "order",
    depth: Annotated[
        int | None, typer.Option(min=1, help="Join layers below this many names of their path.")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Also measure milliseconds here.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the measured calls.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time for the measured calls.")] = 3.0,
    unfolded: Annotated[
        bool, typer.Option("--unfolded", help="Count batch norms apart from their convolutions.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture: .svg, .png or .pdf.", dir_okay=False)
    ] = None,
    json: Json = False,
) -> None:
    """Count parameters, MACs, other operations, bytes moved and activation memory; list what was not counted.

    Nothing is downloaded, trained or changed; without --latency nothing is run.

    Example: [bold]gossamer profile resnet20 --input 1x3x32x32 --sort macs[/bold]
    """
    from .. import measure

    if plot is not None and plot.suffix not in (".svg", ".png", ".pdf"):
        raise typer.BadParameter(
            f"{plot}: expected a name that ends in .svg, .png or .pdf", param_hint="--plot"
        )
    with naming(Path(model)):
        what, example = subject(model, input_, weights)
        found = measure.profile(
            what,
            example,
            latency=latency,
            threads=threads,
            seconds=seconds,
            folded=not unfolded,
            name=model,
        )
    if depth is not None:
        found = found.at_depth(depth)
    rows = found.sorted(sort)
    if plot is not None:
        from ..report import costs

        costs.save(found, plot)
    if json:
        emit("profile", found.to_dict() | {"machine": measure.machine.describe() if latency else None})
        return
    show(found, rows)
    if plot is not None:
        notice("plot", str(plot))


def show(found: Profile, rows: tuple[Row, ...]) -> None:
    """The table, the totals with their units, and what was not counted."""
    out = console()
    shapes = ", ".join(
        f"{name} {'x'.join(map(str, shape))} {dtype}" for name, (dtype, shape) in found.inputs.items()
    )
    out.print(text(f"{found.name}, input {shapes}"))
    out.print(_table(found, rows))
    out.print(_totals(found))
    if found.uncounted:
        missing = Table(title="not counted (no rule knows their operations)", title_justify="left")
        for heading in ("operator", "layers"):
            missing.add_column(heading, overflow="fold")
        missing.add_column("calls", justify="right")
        missing.add_column("output", justify="right")
        for item in found.uncounted:
            layers = ", ".join(name or "(model)" for name in item.layers[:4]) + (
                ", ..." if len(item.layers) > 4 else ""
            )
            missing.add_row(item.op, text(layers), f"{item.calls:,}", bytes_text(item.output_bytes))
        out.print(missing)
    else:
        out.print("not counted: nothing")
    for note in found.notes:
        out.print(text(f"note: {note}"))


def _table(found: Profile, rows: tuple[Row, ...]) -> Table:
    packed = any(row.stored_bytes is not None for row in rows)
    pruned = found.total.cost.macs_nonzero < 0.99 * found.macs  # biases of zero do not make a column
    timed = any(row.latency_ms is not None for row in rows)
    table = Table()
    table.add_column("layer", overflow="fold")
    table.add_column("kind", overflow="fold")
    numbers = ["output", "params", *(["nonzero"] if pruned else []), *(["stored"] if packed else [])]
    numbers += ["MACs", "other ops", "traffic", "FLOP/B", *(["ms"] if timed else [])]
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)

    def cells(row: Row) -> list[str]:
        found = ["x".join(map(str, row.output_shape)), count_text(row.params) if row.params else ""]
        if pruned:
            found.append("" if row.sparsity is None else f"{1 - row.sparsity:.1%}")
        if packed:
            found.append("" if row.stored_bytes is None else bytes_text(row.stored_bytes))
        cost = row.cost
        found += [
            count_text(cost.macs) if cost.macs else "",
            count_text(cost.total_other_ops + cost.bias_adds)
            if cost.total_other_ops + cost.bias_adds
            else "",
            bytes_text(cost.traffic_bytes) if cost.traffic_bytes else "",
            f"{cost.intensity:.3g}" if cost.intensity else "",
        ]
        if timed:
            found.append("" if row.latency_ms is None else f"{row.latency_ms:.4g}")
        return found

    for row in rows:
        table.add_row(text(row.name or "(model)"), row.kind, *cells(row))
    table.add_section()
    total = cells(found.total)
    total[0] = ""
    table.add_row("total", "", *total, style="bold")
    return table


def _totals(found: Profile) -> Table:
    """Every total with its exact value and its unit."""
    total, cost, memory = found.total, found.total.cost, found.memory
    table = Table(title="totals", title_justify="left", show_header=False)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("meaning", overflow="fold")

    def add(name: str, value: str, meaning: str) -> None:
        table.add_row(name, value, text(meaning))

    add("parameters", f"{total.params:,}", "trained, each memory once" + _zeros(found))
    if total.buffers:
        add("buffers", f"{total.buffers:,}", "running statistics, masks, tables")
    add(
        "dense bytes",
        f"{total.dense_bytes:,}",
        f"{bytes_text(total.dense_bytes)} in memory, buffers included",
    )
    if found.file_bytes is not None:
        add("file bytes", f"{found.file_bytes:,}", bytes_text(found.file_bytes))
    add("MACs", f"{cost.macs:,}", f"{count_text(cost.macs)} multiply-accumulates, batch and shapes as above")
    if cost.macs_nonzero < cost.macs:
        add(
            "MACs nonzero",
            f"{cost.macs_nonzero:,}",
            "those with a weight that is not zero; dense kernels run all",
        )
    add("FLOPs", f"{cost.flops:,}", f"2 x MACs + {cost.bias_adds:,} additions of biases")
    others = ", ".join(f"{count_text(count)} {kind}" for kind, count in cost.other_ops.items() if count)
    add("other operations", f"{cost.total_other_ops:,}", others)
    for name in ("adds", "shifts", "bit_ops"):
        if getattr(cost, name):
            add(name.replace("_", " "), f"{getattr(cost, name):,}", "never converted to MACs")
    add(
        "traffic bytes",
        f"{cost.traffic_bytes:,}",
        f"weights {bytes_text(cost.weight_bytes)}, inputs {bytes_text(cost.input_bytes)}, "
        f"outputs {bytes_text(cost.output_bytes)}, each once; {cost.intensity:.3g} FLOP per byte",
    )
    add(
        "peak activation bytes",
        f"{memory.peak_bytes:,}",
        f"at {found.peak_layer or '(model)'}; no order needs less than {bytes_text(memory.lower_bound_bytes)}",
    )
    for name, value in found.latency.items():
        where = f"median of {value.calls:,} calls, 5-95 % {ms_text(value.p5_ms)} to {ms_text(value.p95_ms)}"
        add(f"latency ms, {name}", f"{value.median_ms:.4g}", f"{where}, {found.threads} thread(s)")
    if found.norms_folded:
        table.caption = (
            "batch norms that follow a convolution are counted as folded into it (--unfolded: apart)"
        )
    return table


def _zeros(found: Profile) -> str:
    sparsity = found.total.sparsity
    return f"; {sparsity:.1%} are zero" if sparsity else ""
