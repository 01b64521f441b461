"""Networks from ONNX files, as torch modules."""

from __future__ import annotations

import os

from .build import KNOWN, build
from .file import read
from .fold import fold
from .free import free
from .fuse import fuse
from .graph import decode
from .lift import lift
from .network import OnnxNetwork as OnnxNetwork

__all__ = ["OnnxNetwork", "from_onnx"]


def from_onnx(source: str | os.PathLike[str] | bytes) -> OnnxNetwork:
    """The network of an ONNX file (or of its bytes) as a torch module in evaluation mode.

    The graph is followed node by node with torch's functions, from opset 7 on. Convolutions, linear layers, embeddings
    and norms with constant weights become torch's own modules under the names they had, so every step works on them. A
    free batch stays free, and one that the file fixes becomes free where it can (see `free`). Already quantized weights
    become floats, and rounded activations stay rounded.

    Raises: ModelError for a file that cannot be read, and for operators that cannot be built, by name.
    """
    model = read(source, KNOWN)
    graph = decode(model)
    fold(graph)
    free(graph)
    lift(graph)
    fuse(graph)
    return build(graph).eval()
