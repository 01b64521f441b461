"""Reader: opens a .goss file as if an enemy had written it, and decodes tensors when asked.

Opening reads the head alone. Before any tensor is decoded, the header has been checked whole: every layout,
count and width, that the fields fill the file exactly, and that all decoded arrays together stay below the
limit (64 MiB + 1000 times the file's size, or `max_bytes`). A checksum is compared before its field is
decoded.

Raises: the errors of `gossamer.errors.ArtifactError`'s tree, and CodecError with the field's place.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from .. import codec
from ..errors import ArtifactError, ChecksumError, CodecError, HeaderError, TruncatedError, nearest
from . import head, layouts
from .floats import from_bytes
from .head import CHECKSUM_BYTES, Head, checksum
from .limits import Budget, default_limit
from .outline import FieldOutline, Outline, TensorOutline
from .stored import Field, Floats, Ints, Stored
from .tensor import Artifact, Tensor

_CODERS = {getattr(codec, name).tag: getattr(codec, name) for name in codec.__all__}

Source = str | os.PathLike[str] | bytes | bytearray | memoryview


@dataclass(frozen=True)
class _Place:
    """A tensor's outline and where its first field starts."""

    outline: TensorOutline
    offset: int


class Reader:
    """An open file: `graph`, `metadata` and `names` at hand, each tensor decoded by `tensor(name)`."""

    def __init__(self, source: Source, *, max_bytes: int | None = None) -> None:
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()  # two threads may decode two tensors
        self._data = b""
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._data = bytes(source)
            self.size_bytes = len(self._data)
        else:
            self._file, self.size_bytes = _open(Path(source))
        try:
            limit = default_limit(self.size_bytes) if max_bytes is None else max_bytes
            self._head = head.decode(self._read, self.size_bytes, limit)
            self._places = self._locate(Budget(limit))
        except BaseException:
            self.close()
            raise

    @property
    def graph(self) -> bytes:
        """The ONNX ModelProto without the coded initialisers."""
        return self._head.parts[1]

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self._head.metadata)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in file order."""
        return tuple(self._places)

    @property
    def head(self) -> Head:
        """The whole head, with what it takes in the file."""
        return self._head

    def outline(self, name: str) -> TensorOutline:
        """What the header says of a tensor; nothing is decoded."""
        return self._find(name).outline

    def tensor(self, name: str) -> Tensor:
        """One tensor, its fields decoded and checked."""
        place = self._find(name)
        outline = place.outline
        stored, _ = self._decode(outline.node, place.offset, f"tensor {name!r}")
        layouts.verify(stored, f"tensor {name!r}")
        return Tensor(outline.name, outline.initializer, stored, outline.perm, outline.dtype)

    def tensors(self) -> Iterator[Tensor]:
        """All tensors in file order, one at a time."""
        return (self.tensor(name) for name in self.names)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(self, name: str) -> _Place:
        if name not in self._places:
            raise ArtifactError(f"the file has no tensor {name!r}. {nearest(name, self._places)}")
        return self._places[name]

    def _locate(self, budget: Budget) -> dict[str, _Place]:
        """Check all outlines, and give each its offset."""
        places = {}
        offset = self._head.size_bytes
        for outline in self._head.tensors:
            where = f"tensor {outline.name!r}"
            places[outline.name] = _Place(outline, offset)
            for path, node in outline.node.walk():
                budget.claim_array(f"{where}, {path}" if path else where, node.shape)
                for field in node.fields.values():
                    budget.claim(f"{where}, {field.name}", field.decoded_bytes)
                    if field.width:
                        _check_coder(field, f"{where}, {field.name}")
                    offset += field.size + CHECKSUM_BYTES
                    if offset > self.size_bytes:
                        raise TruncatedError(
                            f"{where}, {field.name}: needs the file to have {offset} bytes, but it has "
                            f"{self.size_bytes}. It was cut short."
                        )
            layouts.check(outline.node, where)
        if offset != self.size_bytes:
            raise TruncatedError(
                f"{self.size_bytes - offset} bytes follow the last field, where the file must end."
            )
        return places

    def _decode(self, node: Outline, offset: int, place: str) -> tuple[Stored, int]:
        fields: dict[str, Field] = {}
        for name, field in node.fields.items():
            fields[name] = self._decode_field(field, offset, f"{place}, {name}")
            offset += field.size + CHECKSUM_BYTES
        inner = {}
        for name, child in node.inner.items():
            inner[name], offset = self._decode(child, offset, f"{place}, {name}")
        return Stored(node.layout, node.shape, fields, inner, node.options), offset

    def _decode_field(self, field: FieldOutline, offset: int, place: str) -> Field:
        stored = self._read(offset, field.size + CHECKSUM_BYTES)
        payload = stored[: field.size]
        if checksum(payload) != stored[field.size :]:
            raise ChecksumError(f"{place}: the checksum does not match: bytes of the file were changed.")
        if field.dtype:
            return Floats(from_bytes(payload, field.dtype), field.dtype)
        try:
            values = codec.decode(field.coder, payload, field.count, field.width)
        except CodecError as error:
            raise CodecError(f"{place}: {error}") from error
        return Ints(values, field.width)

    def _read(self, offset: int, size: int) -> bytes:
        if self._file is None:
            return self._data[offset : offset + size]
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) < size:
            raise TruncatedError(f"the file lost {size - len(data)} bytes while it was read.")
        return data


def read(source: Source, *, max_bytes: int | None = None) -> Artifact:
    """The whole file with every field decoded; `Reader` decodes one tensor at a time."""
    with Reader(source, max_bytes=max_bytes) as reader:
        return Artifact(reader.graph, tuple(reader.tensors()), reader.metadata)


def _check_coder(field: FieldOutline, place: str) -> None:
    """HeaderError unless the coder exists and may code so many values."""
    if field.coder not in _CODERS:
        raise HeaderError(f"{place}: unknown coder {field.coder!r}. {nearest(field.coder, _CODERS)}")
    most = getattr(
        _CODERS[field.coder], "LIMIT", field.count
    )  # a slow coder would make a small file a long wait
    if field.count > most:
        raise HeaderError(f"{place}: coder {field.coder!r} codes at most {most} values, not {field.count}.")
    if field.coder == codec.Bitpack.tag and field.size != -(-field.count * field.width // 8):
        raise HeaderError(
            f"{place}: {field.count} integers of {field.width} bits do not fit {field.size} bytes."
        )


def _open(path: Path) -> tuple[BinaryIO, int]:
    """An open file and its size; only regular files, so that no pipe can make it wait."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be opened ({error.strerror or error}).") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise ArtifactError(f"{path}: is not a regular file.")
    return os.fdopen(handle, "rb"), status.st_size
