"""Forged .goss files: any head and any payloads, with sizes and checksums that are right unless asked."""

from __future__ import annotations

from collections.abc import Sequence

from gossamer.artifact import head, header, varint
from gossamer.artifact.head import MAGIC, checksum
from gossamer.artifact.outline import FieldOutline, Outline, TensorOutline


def forge(
    described: bytes | Sequence[TensorOutline] = b"\0\0\0",
    payloads: Sequence[bytes] = (),
    *,
    graph: bytes = b"graph",
    about: bytes = b"",
    raw: bytes | None = None,
    frame: bytes | None = None,
    raw_size: int | None = None,
    frame_size: int | None = None,
    version: int = 1,
) -> bytes:
    """A file; `described` is a header as bytes or as outlines."""
    if not isinstance(described, bytes):
        described = header.encode(described)
    raw = head.raw_head(described, graph, about) if raw is None else raw
    frame = head.compress(raw) if frame is None else frame
    start = MAGIC + bytes([version])
    start += varint.number(len(raw) if raw_size is None else raw_size)
    start += varint.number(len(frame) if frame_size is None else frame_size)
    start += frame
    return b"".join([start, checksum(start), *(part + checksum(part) for part in payloads)])


def ints(name: str, count: int, size: int, width: int = 8, coder: str = "bitpack") -> FieldOutline:
    return FieldOutline(name, count, size, width=width, coder=coder)


def floats(name: str, count: int, dtype: str = "float32") -> FieldOutline:
    return FieldOutline(name, count, count * (4 if dtype == "float32" else 2), dtype=dtype)


def node(layout: str, shape: Sequence[int], *fields: FieldOutline, **rest: Outline | int) -> Outline:
    """A node; keyword arguments are options (numbers) or inner nodes."""
    return Outline(
        layout,
        tuple(shape),
        {field.name: field for field in fields},
        {name: value for name, value in rest.items() if isinstance(value, Outline)},
        {name: value for name, value in rest.items() if isinstance(value, int)},
    )


def tensor(
    root: Outline, name: str = "t", initializer: str = "w0", perm: tuple[int, ...] | None = None
) -> TensorOutline:
    return TensorOutline(name, initializer, root, perm)
