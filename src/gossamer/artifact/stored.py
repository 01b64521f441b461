"""Stored: what a .goss file keeps of one weight, as plain numpy data.

    Ints     integers of a declared width (1..16 bits); entropy coded by the cheapest coder
    Floats   float32, float16 or bfloat16 values, written raw
    Stored   a node: a layout tag, the dense shape, its own fields, and inner nodes

A node with inner nodes is a tree: `sparse` holds the positions of the entries as its own field and the
entries themselves as the inner node `values`, which may be `dense`, `uniform`, `codebook`, ...
`layouts.rebuild(stored)` turns a tree into the dense float32 array; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Ints:
    """Unsigned integers below 2**width; any shape (stored flat, in C order)."""

    values: np.ndarray
    width: int


@dataclass(frozen=True)
class Floats:
    """Floating-point values [any shape], kept as float32 in memory, written as `dtype`."""

    values: np.ndarray
    dtype: str = "float32"  # or "float16", "bfloat16"


Field = Ints | Floats


@dataclass(frozen=True)
class Stored:
    """One weight as stored fields and the rule (`layout`) that rebuilds it.

    layout: a function name of `artifact.layouts`; shape: the dense shape it rebuilds;
    options: small integers the rule needs (never sizes that the shape already gives).
    """

    layout: str
    shape: tuple[int, ...]
    fields: Mapping[str, Field] = field(default_factory=dict)
    inner: Mapping[str, Stored] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Stored]]:
        """Every node of the tree with its path ("" for the root, "values", "values.left", ...)."""
        yield prefix, self
        for name, node in self.inner.items():
            yield from node.walk(f"{prefix}.{name}" if prefix else name)
