"""The .goss file: spec.md says what is in it, this package writes and reads it without torch or onnx."""

from __future__ import annotations

from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .reader import Reader as Reader
from .reader import read as read
from .stored import Field as Field
from .stored import Floats as Floats
from .stored import Ints as Ints
from .stored import Stored as Stored
from .tensor import Artifact as Artifact
from .tensor import Tensor as Tensor
from .tensor import rebuild as rebuild
from .writer import to_bytes as to_bytes
from .writer import write as write

__all__ = [
    "Artifact",
    "Field",
    "Floats",
    "Inspection",
    "Ints",
    "Reader",
    "Stored",
    "Tensor",
    "inspect",
    "read",
    "rebuild",
    "to_bytes",
    "write",
]
