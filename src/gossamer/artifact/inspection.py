"""Inspection: where the bytes of a .goss file are, exact to the byte.

Header, graph and metadata share one compressed frame; their rows are the growth of the frame as one after the
other is added, and the row `prelude` holds what the frame does not: magic, version, two sizes and the
checksum. A row of a field counts its payload and its checksum. So the rows add up to the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import head
from .head import CHECKSUM_BYTES, Head
from .outline import FieldOutline, Outline, TensorOutline
from .reader import Reader, Source


@dataclass(frozen=True)
class FieldRow:
    """One field: `bits` per value before coding, `size_bytes` with its checksum."""

    tensor: str
    path: str  # inner nodes, e.g. "values"; "" for the tensor's own fields
    name: str
    layout: str
    count: int
    bits: int
    dtype: str  # "uint" for integers
    coder: str  # "raw" for floats
    size_bytes: int


@dataclass(frozen=True)
class TensorRow:
    """One tensor: its tree of layouts as text, dense shape, bytes of all its fields with checksums."""

    name: str
    layout: str
    shape: tuple[int, ...]
    size_bytes: int
    bits_per_weight: float
    fields: tuple[FieldRow, ...]


@dataclass(frozen=True)
class HeadRow:
    """A part of the head: `raw_bytes` before compression, `size_bytes` in the file."""

    name: str
    raw_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Inspection:
    """All rows of a file. `overhead_bytes` is all that is not payload: the head and every checksum."""

    head: tuple[HeadRow, ...]
    tensors: tuple[TensorRow, ...]
    size_bytes: int

    @property
    def payload_bytes(self) -> int:
        rows = [row for tensor in self.tensors for row in tensor.fields]
        return sum(row.size_bytes - CHECKSUM_BYTES for row in rows)

    @property
    def overhead_bytes(self) -> int:
        return self.size_bytes - self.payload_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file per weight that it rebuilds."""
        weights = sum(_numel(tensor.shape) for tensor in self.tensors)
        return 8 * self.size_bytes / weights if weights else 0.0


def inspect(source: Source, *, max_bytes: int | None = None) -> Inspection:
    """The rows of a file, from its head alone: no field is decoded."""
    with Reader(source, max_bytes=max_bytes) as reader:
        outlines = [reader.outline(name) for name in reader.names]
        return Inspection(
            _head_rows(reader.head), tuple(_tensor_row(outline) for outline in outlines), reader.size_bytes
        )


def _head_rows(whole: Head) -> tuple[HeadRow, ...]:
    described, graph, about = whole.parts
    prelude = whole.size_bytes - whole.frame_bytes
    second = min(len(head.compress(head.raw_head(described, graph, b""))), whole.frame_bytes)
    first = min(len(head.compress(head.raw_head(described, b"", b""))), second)
    return (
        HeadRow("prelude", prelude, prelude),
        HeadRow("header", len(described), first),
        HeadRow("graph", len(graph), second - first),
        HeadRow("metadata", len(about), whole.frame_bytes - second),
    )


def _tensor_row(outline: TensorOutline) -> TensorRow:
    fields = tuple(
        _field_row(outline.name, path, node, field)
        for path, node in outline.node.walk()
        for field in node.fields.values()
    )
    size = sum(row.size_bytes for row in fields)
    weights = _numel(outline.node.shape)
    bits = 8 * size / weights if weights else 0.0
    return TensorRow(outline.name, _tree(outline.node), outline.node.shape, size, bits, fields)


def _field_row(tensor: str, path: str, node: Outline, field: FieldOutline) -> FieldRow:
    bits = field.width or (32 if field.dtype == "float32" else 16)
    return FieldRow(
        tensor,
        path,
        field.name,
        node.layout,
        field.count,
        bits,
        field.dtype or "uint",
        field.coder or "raw",
        field.size + CHECKSUM_BYTES,
    )


def _tree(node: Outline) -> str:
    inner = ", ".join(f"{name}={_tree(child)}" for name, child in node.inner.items())
    return f"{node.layout}({inner})" if inner else node.layout


def _numel(shape: tuple[int, ...]) -> int:
    return Outline("", shape).numel
