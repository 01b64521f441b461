"""Tracing: torch.export in silence, and what it said when it could not record a model, in one line with a remedy.

    quiet    no log lines and no warnings inside: what matters is raised or returned
    said     the first telling line of the innermost cause
    remedy   the hint for the first entry of a table [(words, hint)] with a word in any cause, "" without one
    place    the model's own source line that was running, as " (line 12 of model.py: ...)"

Source: torch.export's errors as of torch 2.13; the words are matched in the text of the whole chain of causes.
"""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Remedies = Sequence[tuple[tuple[str, ...], str]]

DATA_DEPENDENT = (
    ("DataDependent", "data-dependent", "Could not guard", "unbacked"),
    "The control flow depends on values: rewrite it with torch.where, or move it out of forward.",
)


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines and no warnings inside."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def said(error: BaseException) -> str:
    """`KeyError: 'x'`: the first telling line of the innermost cause, at most 300 characters, without its full stop."""
    for cause in reversed(_causes(error)):
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            return f"{type(cause).__name__}: {lines[0]}"[:300].rstrip(". ")
    return type(error).__name__


def remedy(error: BaseException, remedies: Remedies) -> str:
    """The hint of the first entry that has a word in the error or one of its causes; "" without one."""
    chain = " ".join(f"{type(cause).__name__}: {cause}" for cause in _causes(error))
    return next((hint for words, hint in remedies if any(word in chain for word in words)), "")


def place(error: BaseException) -> str:
    """The line of forward that was running, when there is one outside torch and this package; else ""."""
    for cause in reversed(_causes(error)):
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            inside = re.search(r"[/\\](torch|onnxscript|onnx_ir|gossamer[/\\]export)[/\\]", frame.filename)
            if not inside and frame.name == "forward":
                return f" (line {frame.lineno} of {Path(frame.filename).name}: {frame.line})"
    return ""


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
