"""Where output goes: results to standard output (text or JSON), everything else to standard error.

`--json` prints one object and nothing else; its keys are described in docs/json.md, and `schema` counts their
versions. Colours follow the terminal: none in a pipe or under NO_COLOR.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..errors import ArtifactError

SCHEMA = 1

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of text (see docs/json.md).")
]


def console() -> Console:
    """Standard output; a pipe gets lines as wide as they are."""
    return Console() if sys.stdout.isatty() else Console(width=120, highlight=False)


def notice(kind: str, text: str) -> None:
    """One line on standard error: `error: ...`."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    style = {"error": "bold red", "interrupted": "bold yellow"}.get(kind, "bold")
    errors.print(kind, style=style, end="")
    errors.print(f": {text}", markup=False)


def progress_line(text: str) -> None:
    """What a long command has done so far, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style="dim", markup=False)


def emit(command: str, answer: Mapping[str, Any]) -> None:
    """One JSON object on standard output, with the schema first; NaN and infinity become null."""
    print(json.dumps({"schema": SCHEMA, "command": command, **_finite(answer)}, indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Errors about a packed file begin with its path."""
    try:
        yield
    except ArtifactError as error:
        if str(error).startswith(str(file)):
            raise
        raise type(error)(f"{file}: {error}") from error


def text(value: str) -> Text:
    """Text that is shown as it is: names of files and layers may hold brackets."""
    return Text(value)


def size(count: int) -> str:
    """A count of bytes with thousands separators."""
    return f"{count:,}"
