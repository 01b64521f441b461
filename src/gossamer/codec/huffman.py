"""Huffman: a canonical prefix code, the entropy coder of Deep Compression.

    H <= bits per symbol < H + 1,   never below 1 bit: where one symbol dominates, rANS is better

The payload holds the code lengths, range coded as differences (natively: native/range/table.h), then one
stream of bits, or four from 16,384 symbols on so that a core follows four chains at once. Lengths are
optimal under a limit of 15 bits (package-merge) for up to 2,048 symbols that occur, and of log2 K + 4 bits,
20 at most, beyond. An alphabet of one symbol takes no bits: 0 to 3 bytes in all.

Source: Huffman 1952; Larmore and Hirschberg 1990 (limited lengths); Han et al., arXiv:1510.00149, section 4.
"""

from __future__ import annotations

import numpy as np

from .. import native
from ..errors import OptionError
from .symbols import Buffer, check_width, prepare, read


class Huffman:
    """Canonical Huffman coding with its own table."""

    tag = "huffman"

    @staticmethod
    def encode(symbols: np.ndarray, width: int) -> bytes:
        return native.written("huffman_encode", prepare(symbols, width), width)

    @staticmethod
    def decode(payload: Buffer, count: int, width: int) -> np.ndarray:
        return read("huffman", payload, count, width)

    @staticmethod
    def cost_bytes(symbols: np.ndarray, width: int) -> int:
        flat = prepare(symbols, width)
        cost = native.load().gossamer_huffman_cost(native.address(flat), flat.size, width)
        return native.checked(cost, "huffman")

    @staticmethod
    def table_bytes(symbols: np.ndarray, width: int) -> int:
        """The part of the payload that is table."""
        flat = prepare(symbols, width)
        size = native.load().gossamer_huffman_table_bytes(native.address(flat), flat.size, width)
        return native.checked(size, "huffman")

    @staticmethod
    def code_lengths(histogram: np.ndarray, width: int) -> np.ndarray:
        """Bits of each symbol's code, uint8 [2**width]; 0 where it does not occur, or occurs alone."""
        counts = np.ascontiguousarray(histogram, np.int64)
        if counts.shape != (1 << check_width(width),) or (counts < 0).any():
            raise OptionError(
                f"huffman: received a histogram of shape {counts.shape}, expected {1 << width} counts >= 0."
            )
        lengths = np.empty(counts.size, np.uint8)
        code = native.load().gossamer_huffman_lengths(native.address(counts), width, native.address(lengths))
        native.checked(code, "huffman")
        return lengths
