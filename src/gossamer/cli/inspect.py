"""`gossamer inspect`: what is in a packed file, to the byte."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .output import Json, console, emit, naming, size, text

if TYPE_CHECKING:
    from ..artifact import Inspection


def inspect(
    file: Annotated[Path, typer.Argument(help="A .goss file.", show_default=False)],
    json: Json = False,
) -> None:
    """Show every stored tensor: layout, fields, coder and bytes. The rows add up to the file's size.

    Example: [bold]gossamer inspect model.goss[/bold]
    """
    from .. import artifact

    with naming(file):
        found = artifact.inspect(file)
        with artifact.Reader(file) as reader:
            metadata = dict(reader.metadata)
    if json:
        emit("inspect", {"file": str(file), **described(found), "metadata": metadata})
    else:
        console().print(table(found, str(file)))


def described(found: Inspection) -> dict[str, Any]:
    """JSON-ready: `bytes` of the head rows and of the tensors sum to `file_bytes`."""
    return {
        "file_bytes": found.size_bytes,
        "payload_bytes": found.payload_bytes,
        "overhead_bytes": found.overhead_bytes,
        "bits_per_weight": found.bits_per_weight,
        "head": [
            {"name": row.name, "raw_bytes": row.raw_bytes, "bytes": row.size_bytes} for row in found.head
        ],
        "tensors": [
            {
                "name": tensor.name,
                "layout": tensor.layout,
                "shape": list(tensor.shape),
                "bytes": tensor.size_bytes,
                "bits_per_weight": tensor.bits_per_weight,
                "fields": [
                    {
                        "field": f"{field['path']}.{field['name']}" if field["path"] else field["name"],
                        "layout": field["layout"],
                        "count": field["count"],
                        "dtype": field["dtype"],
                        "width": field["bits"],
                        "coder": field["coder"],
                        "bytes": field["size_bytes"],
                    }
                    for field in map(asdict, tensor.fields)
                ],
            }
            for tensor in found.tensors
        ],
    }


def table(found: Inspection, name: str) -> Table:
    """One row per tensor and per field, then the head and the total."""
    rows = Table(title=text(name), title_justify="left", title_style="bold")
    for heading in ("tensor / field", "shape / values", "layout / coder"):
        rows.add_column(heading, overflow="fold")
    rows.add_column("bits", justify="right")
    rows.add_column("bytes", justify="right")
    rows.add_column("share", justify="right")

    def share(part: int) -> str:
        return f"{part / found.size_bytes:.1%}"

    for tensor in described(found)["tensors"]:
        shape = " x ".join(map(str, tensor["shape"])) or "scalar"
        bits = f"{tensor['bits_per_weight']:.2f}"
        rows.add_row(
            text(tensor["name"]), shape, tensor["layout"], bits, size(tensor["bytes"]), share(tensor["bytes"])
        )
        for field in tensor["fields"]:
            coder = f"{field['coder']} {field['dtype']}{field['width'] if field['dtype'] == 'uint' else ''}"
            rows.add_row(
                f"  {field['field']}", f"{field['count']:,}", coder, "", size(field["bytes"]), "", style="dim"
            )
    rows.add_section()
    for row in found.head:
        rows.add_row(
            row.name, f"{row.raw_bytes:,} bytes raw", "", "", size(row.size_bytes), share(row.size_bytes)
        )
    rows.add_section()
    bits = f"{found.bits_per_weight:.2f}"
    rows.add_row("file", "", "", bits, size(found.size_bytes), share(found.size_bytes), style="bold")
    return rows
