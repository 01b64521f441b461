"""Symbols: what every coder takes and gives, checked once at the boundary.

Symbols are unsigned integers below 2**width, width 1..16, in one dimension: uint8 for width <= 8, uint16
above.
Raises: OptionError for symbols an encoder cannot take, CodecError for a count no payload can have.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .. import native
from ..errors import CodecError, OptionError

Buffer: TypeAlias = bytes | bytearray | memoryview | np.ndarray


def dtype_of(width: int) -> np.dtype:
    """The type of symbols of this width."""
    return np.dtype(np.uint8 if width <= 8 else np.uint16)


def check_width(width: int) -> int:
    """The width itself, if 1..16."""
    if not 1 <= width <= 16:
        raise OptionError(f"symbols: width is {width} bits, expected 1..16.")
    return int(width)


def prepare(symbols: np.ndarray, width: int) -> np.ndarray:
    """The symbols, flat and contiguous in the type of their width; refuses what does not fit it."""
    check_width(width)
    flat = np.asarray(symbols).reshape(-1)
    if flat.size == 0:
        return np.empty(0, dtype_of(width))
    if flat.dtype.kind not in "ui" and flat.dtype != np.bool_:
        raise OptionError(f"symbols: received {flat.dtype}, expected integers. Quantize first, then code.")
    low, high = int(flat.min()), int(flat.max())
    if low < 0 or high >= 1 << width:
        raise OptionError(
            f"symbols: values lie in {low}..{high}, but {width} bits hold 0..{(1 << width) - 1}. "
            f"Use {max(high.bit_length(), 1)} bits, or shift the values to start at zero."
        )
    return np.ascontiguousarray(flat, dtype_of(width))


def bytes_view(payload: Buffer) -> np.ndarray:
    """The payload as uint8, without a copy where it is contiguous."""
    if isinstance(payload, np.ndarray):
        return np.ascontiguousarray(payload).reshape(-1).view(np.uint8)
    return np.frombuffer(payload, np.uint8)


def read(coder: str, payload: Buffer, count: int, width: int) -> np.ndarray:
    """`count` symbols that the library's decoder `coder` reads from the payload."""
    check_width(width)
    if count < 0 or count >= 1 << 48:
        raise CodecError(f"{coder}: count is {count}, expected 0..2**48. The header that says so is damaged.")
    data, symbols = bytes_view(payload), np.empty(count, dtype_of(width))
    decode = getattr(native.load(), f"gossamer_{coder}_decode")
    code = decode(native.address(data), data.size, native.address(symbols), count, width)
    native.checked(code, f"{coder}: {data.size} bytes for {count} symbols of {width} bits")
    return symbols


def histogram(symbols: np.ndarray, width: int) -> np.ndarray:
    """How often each of the 2**width symbols occurs, int64 [2**width]."""
    flat = prepare(symbols, width)
    counts = np.empty(1 << width, np.int64)
    code = native.load().gossamer_histogram(native.address(flat), flat.size, width, native.address(counts))
    native.checked(code, "histogram")
    return counts
