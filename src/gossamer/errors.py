"""Every error Gossamer raises on purpose.

    GossamerError
    ├── OptionError        an option, a name or a recipe that cannot be right (also a ValueError)
    ├── DataError          a data set: missing, malformed, labels out of range, NaN
    ├── ModelError         a model: cannot be found, loaded, or called
    ├── FormatError        a weight that a format cannot represent
    ├── StepError          a step of a recipe failed or touched nothing
    ├── TrainingError      a loss or a weight is no longer finite
    ├── ExportError        the model cannot be written as a graph
    ├── MeasureError       a figure that could not be measured
    ├── NativeError        the native library is missing or does not fit
    ├── CodecError         a coded stream that no encoder wrote
    └── ArtifactError      a .goss file that breaks a rule of artifact/spec.md
        ├── MagicError         it is not a .goss file
        ├── VersionError       a newer or unknown version
        ├── TruncatedError     it ends too early, or goes on too long
        ├── ChecksumError      bytes were changed
        ├── HeaderError        the header says something impossible
        └── LimitError         it claims more memory than the reader's limit

A message names the place, what was received, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GossamerError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line."""


class OptionError(GossamerError, ValueError):
    """An option, a name or a recipe that cannot be right."""


class DataError(GossamerError):
    """A data set is missing, malformed, or holds labels or values that cannot be used."""


class ModelError(GossamerError):
    """A model cannot be found, loaded, or called."""


class FormatError(GossamerError):
    """A weight that a format cannot represent."""


class StepError(GossamerError):
    """A step failed, or touched nothing."""


class TrainingError(GossamerError):
    """A loss or a weight is no longer finite."""


class ExportError(GossamerError):
    """The model cannot be written as a graph."""


class MeasureError(GossamerError):
    """A figure could not be measured."""


class NativeError(GossamerError):
    """The native library is missing or does not fit this package."""


class CodecError(GossamerError):
    """A coded stream that no encoder wrote."""


class ArtifactError(GossamerError):
    """A .goss file breaks a rule of artifact/spec.md."""


class MagicError(ArtifactError):
    """The file is not a .goss file."""


class VersionError(ArtifactError):
    """The file was written by a newer or unknown version."""


class TruncatedError(ArtifactError):
    """The file ends too early, or goes on too long."""


class ChecksumError(ArtifactError):
    """Bytes of the file were changed."""


class HeaderError(ArtifactError):
    """The header says something impossible."""


class LimitError(ArtifactError):
    """The file claims more memory than the reader's limit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'conv1'? ` for a name close to a known one, else the list of known names."""
    names = list(known)
    match = difflib.get_close_matches(name, names, n=1)
    if match:
        return f"Did you mean {match[0]!r}?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"Known: {shown}." if names else "Nothing is known here."
