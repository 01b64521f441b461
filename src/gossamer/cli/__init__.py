"""The command `gossamer`: one file for each subcommand, and `main`, which turns errors into one line.

Exit codes: 0 done, 1 an error (one line on standard error; --debug shows the trace), 2 wrong usage, 130
interrupted. Results go to standard output, progress and errors to standard error; NO_COLOR and pipes are
respected.
"""

from __future__ import annotations

from .main import app as app
from .main import main as main

__all__ = ["app", "main"]
