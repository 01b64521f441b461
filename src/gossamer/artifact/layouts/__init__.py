"""Layouts: the rules that rebuild a dense float32 array from stored fields.

The names exported here are the tags a file may use. Each layout is one module of three functions:

    check(outline, place)   HeaderError unless fields, counts and options fit; runs before any field is read
    verify(stored, place)   HeaderError unless the decoded values fit (an index beyond its table, ...)
    rebuild(stored)         the dense float32 array [stored.shape], in C order

`integers` with numbers of more than 16 bits gives float64. The functions below run them over a whole tree.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ...errors import HeaderError, nearest
from ..outline import Outline
from ..stored import Stored
from . import binary as binary
from . import codebook as codebook
from . import dense as dense
from . import integers as integers
from . import sparse as sparse
from . import uniform as uniform

__all__ = ["binary", "codebook", "dense", "integers", "sparse", "uniform"]


def find(tag: str, place: str) -> ModuleType:
    """The layout called `tag`."""
    if tag not in __all__:
        raise HeaderError(f"{place}: unknown layout {tag!r}. {nearest(tag, __all__)}")
    module: ModuleType = globals()[tag]
    return module


def check(outline: Outline, place: str) -> None:
    """Check a tree of outlines, before anything of it is read."""
    for path, node in outline.walk():
        where = f"{place}, {path}" if path else place
        find(node.layout, where).check(node, where)


def verify(stored: Stored, place: str) -> None:
    """Check the decoded values of a tree."""
    for path, node in stored.walk():
        where = f"{place}, {path}" if path else place
        find(node.layout, where).verify(node, where)


def rebuild(stored: Stored) -> np.ndarray:
    """The dense array [stored.shape] of a tree that was checked."""
    array: np.ndarray = find(stored.layout, "layout").rebuild(stored)
    return array
