"""unpack: a .goss file as a plain ONNX model, for any other engine.

The graph is written again with every weight as raw values (float32, or the type that the graph wants); the
weights are decoded one at a time.

Raises: ArtifactError for a file that breaks a rule, LimitError when the model would pass protobuf's 2 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .. import artifact
from ..errors import LimitError
from . import graph, weights
from . import protobuf as pb

MAX_PROTOBUF = 2**31 - 1


def unpack(path: str | os.PathLike[str] | bytes, *, max_bytes: int | None = None) -> bytes:
    """The bytes of an ONNX file."""
    return b"".join(pieces(path, max_bytes=max_bytes))


def unpack_to(
    path: str | os.PathLike[str] | bytes, target: str | os.PathLike[str], *, max_bytes: int | None = None
) -> int:
    """Write the ONNX file to `target`, holding one weight in memory at a time; returns its size in bytes."""
    parts = pieces(path, max_bytes=max_bytes)
    first = next(parts)  # a broken or too large file must not leave an empty target behind
    size = 0
    with Path(target).open("wb") as out:
        size += out.write(first)
        for part in parts:
            size += out.write(part)
    return size


def pieces(path: str | os.PathLike[str] | bytes, *, max_bytes: int | None = None) -> Iterator[bytes]:
    """The bytes of an ONNX file, one weight after the other."""
    with artifact.Reader(path, max_bytes=max_bytes) as reader:
        yield from serialized(reader)


def serialized(reader: artifact.Reader) -> Iterator[bytes]:
    """The same from an open file."""
    rest, body = graph.split(reader.graph)
    graph.refuse_external(body)
    heads, size = [], len(body)
    for item in weights.initializers(reader):
        head = item.raw_head()
        heads.append(pb.start(graph.GRAPH_INITIALIZER, len(head) + item.size_bytes) + head)
        size += len(heads[-1]) + item.size_bytes
    if len(rest) + size + 16 > MAX_PROTOBUF:
        raise LimitError(
            f"the ONNX file would take {size / 1e9:.2f} GB, but one protobuf file ends at 2.15 GB. "
            "Run the .goss file with gossamer.open instead."
        )
    yield rest + pb.start(graph.MODEL_GRAPH, size) + bytes(body)
    for head, array in zip(heads, weights.arrays(reader), strict=True):
        yield head
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
