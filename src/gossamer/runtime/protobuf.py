"""Just enough of the protobuf wire format to read and extend an ONNX graph without the onnx package.

A message is a sequence of fields; a field is `varint(number << 3 | kind)` and a value:

    kind 0  a varint                        kind 2  a length and that many bytes (text, message, numbers)
    kind 1  eight bytes                     kind 5  four bytes

Raises: HeaderError when the bytes are no such sequence (the graph of a .goss file is not trusted).
Source: https://protobuf.dev/programming-guides/encoding/, and onnx.proto for the field numbers used here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import HeaderError

Value = int | memoryview


def varint(number: int) -> bytes:
    """An unsigned integer, seven bits a byte, least significant first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    """One integer field."""
    return varint(field << 3) + varint(value)


def start(field: int, size: int) -> bytes:
    """What precedes the `size` bytes of a text or message field."""
    return varint(field << 3 | 2) + varint(size)


def message(field: int, content: bytes) -> bytes:
    """One text or message field."""
    return start(field, len(content)) + content


def fields(data: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """The (number, value) pairs of a message, in order; bytes come as views."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise HeaderError(f"graph: a field of unknown kind {kind}; the bytes are no ONNX model.")
        if size > len(view) - at:
            raise HeaderError(f"graph: a field of {size} bytes, but {len(view) - at} are left.")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(view):
            raise HeaderError("graph: it ends within a number; the bytes are no ONNX model.")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise HeaderError("graph: a number of more than ten bytes; the bytes are no ONNX model.")


def varints(view: memoryview) -> list[int]:
    """The numbers of a packed list."""
    found, at = list[int](), 0
    while at < len(view):
        number, at = _varint(view, at)
        found.append(number)
    return found


def text(value: Value) -> str:
    """A text field's value."""
    if isinstance(value, int):
        raise HeaderError("graph: a number stands where a text is expected; the bytes are no ONNX model.")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise HeaderError(f"graph: a name is not UTF-8 ({error}).") from error
