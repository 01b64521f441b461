"""Bitpack: every symbol in exactly `width` bits, low bit first.

    bytes = ceil(count * width / 8)

Decodes fastest and never grows; best where all symbols are about equally likely, or for a handful of them.
"""

from __future__ import annotations

import numpy as np

from .. import native
from .symbols import Buffer, check_width, prepare, read


class Bitpack:
    """Fixed-width packing."""

    tag = "bitpack"

    @staticmethod
    def encode(symbols: np.ndarray, width: int) -> bytes:
        flat = prepare(symbols, width)
        out = np.empty((flat.size * width + 7) // 8, np.uint8)
        pack = native.load().gossamer_bitpack_encode
        native.checked(pack(native.address(flat), flat.size, width, native.address(out)), "bitpack")
        return out.tobytes()

    @staticmethod
    def decode(payload: Buffer, count: int, width: int) -> np.ndarray:
        return read("bitpack", payload, count, width)

    @staticmethod
    def cost_bytes(symbols: np.ndarray, width: int) -> int:
        return (np.asarray(symbols).size * check_width(width) + 7) // 8
