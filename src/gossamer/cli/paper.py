"""`gossamer paper`: reproduce a paper's table and say which of its claims hold here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import OptionError
from .output import Json, console, emit


def paper(
    name: Annotated[
        str | None, typer.Argument(help="A paper of papers/, or a YAML file; see --list.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the papers and exit.")] = False,
    json: Json = False,
) -> None:
    """Run a paper's recipe with its seeds; print published figure, ours, and the verdict.

    Example: [bold]gossamer paper deep-compression[/bold]
    """
    from .. import papers

    if list_:
        if json:
            emit("paper", {"papers": papers.names()})
        else:
            console().print("\n".join(papers.names()), highlight=False)
        return
    if name is None:
        raise OptionError(f"paper: name one of {', '.join(papers.names())}.")
    result = papers.run_paper(name, folder=out, progress=True)
    if json:
        emit("paper", result)
        return
    console().print(claims(result))
    for run, rows in result.get("tables", {}).items():
        console().print(layers(run, rows))


def claims(result: dict[str, Any]) -> Table:
    """One row per claim; a claim that fails stays visible as failed."""
    rows = result["claims"]
    held = sum(bool(row["holds"]) for row in rows)
    table = Table(title=f"{result['paper']}: {held} of {len(rows)} claims hold", title_justify="left")
    for heading, justify in (
        ("claim", "left"),
        ("published", "right"),
        ("expected", "left"),
        ("ours", "right"),
    ):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("spread", justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("holds")
    for row in rows:
        seeds = row["seeds"]
        table.add_row(
            str(row["name"]),
            _shown(row["published"]),
            str(row["claim"]),
            _shown(row["ours"]),
            _shown(row["spread"]),
            str(len(seeds) if isinstance(seeds, list) else seeds),
            "[green]yes[/green]" if row["holds"] else "[bold red]no[/bold red]",
        )
    return table


def layers(run: str, rows: list[dict[str, Any]]) -> Table:
    """A table of the paper layer by layer, its figure above ours."""
    table = Table(title=f"{run}: published, and ours below", title_justify="left")
    table.add_column("layer")
    for heading in rows[0]["published"]:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["layer"], *map(_shown, row["published"].values()), style="dim")
        table.add_row("", *(_shown(row["ours"].get(key)) for key in row["published"]))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " to ".join(_shown(item) for item in value)
    return str(value)
