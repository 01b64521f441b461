"""weights: the initialisers of an open file, decoded one at a time.

initializer(outline)     what the graph must be told of a tensor: name, transposed shape, type
arrays(reader)           (initialiser, array) pairs in file order; one array is decoded per step
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import artifact
from .graph import Initializer


def initializers(reader: artifact.Reader) -> list[Initializer]:
    """What the graph must be told of every stored tensor, in file order; nothing is decoded."""
    found = []
    for name in reader.names:
        outline = reader.outline(name)
        shape = outline.node.shape
        if outline.perm is not None:
            shape = tuple(shape[axis] for axis in outline.perm)
        found.append(Initializer(outline.initializer, shape, outline.dtype))
    return found


def arrays(reader: artifact.Reader) -> Iterator[np.ndarray]:
    """The arrays of `initializers(reader)`, one decoded at a time."""
    return (np.ascontiguousarray(artifact.rebuild(reader.tensor(name))) for name in reader.names)
