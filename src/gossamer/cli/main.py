"""The program: registers the commands, and lets no error escape as a trace.

GossamerError, OSError     exit 1, `error: ...`              --debug raises it instead
a missing package          exit 1, and how to install it
wrong usage                exit 2, with the nearest known name
Ctrl-C                     exit 130, and how to resume
anything else              exit 1, named as a defect of the program
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..errors import GossamerError
from .bench import bench
from .compare import compare
from .compress import compress
from .demo import demo
from .inspect import inspect
from .output import notice
from .paper import paper
from .profile import profile
from .quantize import quantize
from .run import run
from .unpack import unpack

RESUMABLE = ("compress", "demo", "paper", "quantize")

app = typer.Typer(
    name="gossamer",
    help="A network in, one small file out, and the file runs.",
    epilog="First time here? Try: gossamer demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (compress, quantize, inspect, unpack, run, bench, profile, compare, paper, demo):
    app.command()(command)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """A network in, one small file out, and the file runs."""
    if version:
        from .. import __version__

        typer.echo(f"gossamer {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run one command line (default: this process's) and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]  # accepted anywhere, so that it can be added to the line that failed
    given = [word for word in given[:end] if word != "--debug"] + given[end:]
    try:
        app(args=given, prog_name="gossamer")
    except SystemExit as stop:
        if stop.code == 130:
            _interrupted(given)
        raise
    except KeyboardInterrupt:
        _interrupted(given)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output left (`gossamer inspect f | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # the one place that may: the outermost, and it says so
        if debug:
            raise
        notice("error", _line(error))
        sys.exit(1)


def _line(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, GossamerError):
        text = str(error)
    elif isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != "gossamer":
        text = (
            f"this command needs the package {error.name!r}, which is not installed. "
            f"Install it with: pip install 'gossamer[compress]'"
        )
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or error}. Check the path, the permissions and the free space."
    else:
        text = f"unexpected {type(error).__name__}: {error}. Add --debug to see where; please report it."
    return " ".join(text.split())


def _interrupted(given: list[str]) -> None:
    resumes = any(word in RESUMABLE for word in given[:1])
    notice(
        "interrupted",
        "run the same command again to resume where it stopped." if resumes else "nothing was changed.",
    )
