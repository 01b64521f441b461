"""Varint: whole numbers and texts as bytes, read from hostile input.

    number   7 bits per byte, lowest first, the top bit says "one more byte"; shortest form only, below 2**63
    signed   number of (v << 1) ^ (v >> 63), so that small negative values stay small
    text     number of UTF-8 bytes, then the bytes

Raises: HeaderError when the bytes end inside an item, or the item is not in its shortest form.
"""

from __future__ import annotations

from ..errors import HeaderError

MAX_TEXT = 1024  # bytes of one name


def number(value: int) -> bytes:
    """`value` >= 0 as bytes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    return number((value << 1) ^ (value >> 63))


def text(value: str) -> bytes:
    raw = value.encode()
    return number(len(raw)) + raw


class Cursor:
    """Reads items one after another from `data`; `place` names it in errors."""

    def __init__(self, data: bytes, place: str) -> None:
        self.data = data
        self.place = place
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def number(self) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self.data):
                raise HeaderError(
                    f"{self.place}: ends inside a number at byte {self.at}. The file is damaged."
                )
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 56:
                raise HeaderError(f"{self.place}: a number of more than 63 bits at byte {self.at}.")
        if byte == 0 and shift:
            raise HeaderError(f"{self.place}: a number with a needless zero byte at byte {self.at}.")
        return value

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise HeaderError(
                f"{self.place}: {size} bytes claimed at byte {self.at}, but {self.left} are left."
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self, limit: int = MAX_TEXT) -> str:
        size = self.number()
        if size > limit:
            raise HeaderError(
                f"{self.place}: a text of {size} bytes at byte {self.at}; at most {limit} allowed."
            )
        return decoded(self.take(size), self.place)


def decoded(raw: bytes, place: str) -> str:
    """`raw` as text."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise HeaderError(f"{place}: a text is not UTF-8 ({error.reason} at byte {error.start}).") from error
