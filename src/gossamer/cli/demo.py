"""`gossamer demo`: the whole way on bundled digits, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .compress import finish
from .output import Json


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    json: Json = False,
) -> None:
    """Train a small network on bundled handwritten digits, compress it, and measure the file.

    Needs no download and under two minutes on two cores.

    Example: [bold]gossamer demo --out runs/demo[/bold]
    """
    from .. import recipe

    finish("demo", recipe.load("demo"), out, fresh=fresh, json=json)
