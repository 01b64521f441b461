"""`gossamer unpack`: a packed file as plain ONNX, for any engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .output import Json, console, emit, naming


def unpack(
    file: Annotated[Path, typer.Argument(help="A .goss file.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")] = Path(
        "model.onnx"
    ),
    json: Json = False,
) -> None:
    """Write the network as an ordinary ONNX file with dense float weights.

    Example: [bold]gossamer unpack model.goss -o model.onnx[/bold]
    """
    from .. import runtime

    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with naming(file):
            plain = runtime.unpack_to(file, partial)
        partial.replace(output)  # never half a file under the final name
    finally:
        partial.unlink(missing_ok=True)
    packed = file.stat().st_size
    if json:
        emit(
            "unpack", {"file": str(file), "file_bytes": packed, "output": str(output), "output_bytes": plain}
        )
    else:
        console().print(f"{output}: {plain:,} bytes of ONNX from {packed:,} packed bytes", highlight=False)
