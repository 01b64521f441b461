"""Head: everything of a file but the coded fields, compressed in one frame.

    prelude   magic, version, size of the raw head, size of the frame
    frame     zstd of  [size of header] header [size of graph] graph metadata
    checksum  CRC-32 of all bytes above

The frame is zstd with all that can be implied left out (magic, dictionary id, content size, checksum) and
with a dictionary (dictionary-1.bin, part of version 1 of the format) made of the heads of other networks: for
a network of a few kilobytes the head is a large part of the file, and most of it is what every head says.
"""

from __future__ import annotations

import functools
import importlib.resources
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from ..errors import (
    ArtifactError,
    ChecksumError,
    HeaderError,
    LimitError,
    MagicError,
    TruncatedError,
    VersionError,
)
from . import header, metadata, varint
from .limits import MAX_HEADER, head_limit
from .outline import TensorOutline

MAGIC = b"GOSS"
VERSION = 1
CHECKSUM_BYTES = 4
PRELUDE_MAX = len(MAGIC) + 1 + 9 + 9
LEVEL = 22


@dataclass(frozen=True)
class Head:
    """What the head of a file says, and what it takes.

    parts: header, graph and metadata as bytes before compression; size_bytes: all bytes before the first
    field; frame_bytes: the compressed frame among them.
    """

    tensors: list[TensorOutline]
    metadata: dict[str, Any]
    parts: tuple[bytes, bytes, bytes]
    size_bytes: int
    frame_bytes: int


def checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")


def encode(tensors: Sequence[TensorOutline], graph: bytes, about: Mapping[str, Any]) -> bytes:
    """The file's first bytes, up to the first field."""
    described = header.encode(tensors)
    if len(described) > MAX_HEADER:
        raise ArtifactError(f"the header takes {len(described)} bytes; at most {MAX_HEADER} are allowed.")
    raw = raw_head(described, graph, metadata.encode(about))
    frame = compress(raw)
    if len(raw) > head_limit(len(frame)):
        raise ArtifactError(
            f"the graph compresses from {len(raw)} to {len(frame)} bytes: no reader allows it."
        )
    start = MAGIC + bytes([VERSION]) + varint.number(len(raw)) + varint.number(len(frame)) + frame
    return start + checksum(start)


def raw_head(described: bytes, graph: bytes, about: bytes) -> bytes:
    """The head before compression."""
    return varint.number(len(described)) + described + varint.number(len(graph)) + graph + about


def decode(read: Callable[[int, int], bytes], file_size: int, max_bytes: int) -> Head:
    """The head of a file whose bytes `read(offset, size)` returns; nothing of it is trusted."""
    start = read(0, min(PRELUDE_MAX, file_size))
    if not start.startswith(MAGIC[: len(start)]):
        raise MagicError(f"the file starts with {start[:4]!r}, not {MAGIC!r}: it is not a .goss file.")
    if len(start) <= len(MAGIC):
        raise TruncatedError(f"the file ends after {len(start)} bytes, within its first words.")
    if start[len(MAGIC)] != VERSION:
        raise VersionError(
            f"the file has version {start[len(MAGIC)]}, but this reader knows {VERSION}. Update gossamer."
        )
    if file_size < PRELUDE_MAX and sum(byte < 0x80 for byte in start[len(MAGIC) + 1 :]) < 2:
        raise TruncatedError("the file ends before the sizes of its head.")
    cursor = varint.Cursor(start, "prelude")
    cursor.at = len(MAGIC) + 1
    raw_size, frame_size = cursor.number(), cursor.number()
    end = cursor.at + frame_size
    if end + CHECKSUM_BYTES > file_size:
        raise TruncatedError(f"the head claims {frame_size} bytes, but the file has {file_size} in all.")
    limit = min(head_limit(frame_size), max_bytes)
    if raw_size > limit:
        raise LimitError(f"the head claims to expand to {raw_size} bytes, more than the limit of {limit}.")
    stored = read(0, end + CHECKSUM_BYTES)
    if checksum(stored[:end]) != stored[end:]:
        raise ChecksumError("the head's checksum does not match: bytes of the file were changed.")
    parts = split(expand(stored[cursor.at : end], raw_size))
    return Head(header.decode(parts[0]), metadata.decode(parts[2]), parts, len(stored), frame_size)


def split(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """The three parts of the raw head: header, graph, metadata."""
    cursor = varint.Cursor(raw, "head")
    size = cursor.number()
    if size > MAX_HEADER:
        raise HeaderError(f"head: a header of {size} bytes; at most {MAX_HEADER} are allowed.")
    described = cursor.take(size)
    graph = cursor.take(cursor.number())
    return described, graph, cursor.take(cursor.left)


def compress(raw: bytes, dictionary: bytes | None = None) -> bytes:
    """`raw` as a frame; the window is the smallest that spans it. `dictionary` replaces the format's own."""
    window = min(max(len(raw) - 1, 1).bit_length(), 27)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(raw),
        window_log=max(window, zstandard.WINDOWLOG_MIN),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    known = _dictionary() if dictionary is None else zstandard.ZstdCompressionDict(dictionary)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=known).compress(raw)


def expand(frame: bytes, raw_size: int) -> bytes:
    """The raw head, read piece by piece so that no more than `raw_size` bytes are ever held."""
    window = 1 << max(max(raw_size - 1, 1).bit_length(), zstandard.WINDOWLOG_MIN)
    decompressor = zstandard.ZstdDecompressor(
        dict_data=_dictionary(), format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=window
    )
    parts = []
    left = raw_size
    try:
        with decompressor.stream_reader(frame, read_across_frames=False) as stream:
            while left and (part := stream.read(min(left, 2**17))):
                parts.append(part)
                left -= len(part)
            extra = stream.read(1)
    except zstandard.ZstdError as error:
        raise HeaderError(f"head: not a zstd frame of version {VERSION} ({error}).") from error
    if left or extra:
        more = "more" if extra else f"{raw_size - left}"
        raise HeaderError(f"head: expands to {more} bytes instead of the {raw_size} that it claims.")
    return b"".join(parts)


@functools.cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    data = importlib.resources.files(__package__).joinpath(f"dictionary-{VERSION}.bin").read_bytes()
    return zstandard.ZstdCompressionDict(data)
