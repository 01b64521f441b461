"""rANS: asymmetric numeral systems, within 0.5 % and 8 bytes of the entropy on any distribution.

    slot = x mod 2^n;   s: c_s <= slot < c_{s+1};   x <- f_s floor(x / 2^n) + slot - c_s

The frequencies f_s sum to 2^n, n = 6..30. The payload holds a table of round(scale * sqrt(count)) per
symbol, range coded as differences; scale and n are chosen by the exact sum of table and symbols. Three
forms share it:

    small   under 8 KiB: table and symbols in one range-coded message, no state to store
    wide    four 64-bit states: large alphabets, skewed distributions
    fast    thirty-two 32-bit states, n <= 14, alphabets of 256: from 36 KiB, by AVX2 or AVX-512 where present

Source: Duda, arXiv:1311.2540; Giesen, arXiv:1402.3392 (interleaved states).
"""

from __future__ import annotations

import numpy as np

from .. import native
from .symbols import Buffer, prepare, read


class Rans:
    """Static entropy coding with its own frequency table."""

    tag = "rans"

    @staticmethod
    def encode(symbols: np.ndarray, width: int) -> bytes:
        return native.written("rans_encode", prepare(symbols, width), width)

    @staticmethod
    def decode(payload: Buffer, count: int, width: int) -> np.ndarray:
        return read("rans", payload, count, width)

    @staticmethod
    def cost_bytes(symbols: np.ndarray, width: int) -> int:
        """The exact size; the words of a state depend on the order of symbols, so it encodes."""
        return len(Rans.encode(symbols, width))

    @staticmethod
    def table_bytes(symbols: np.ndarray, width: int) -> int:
        """The part of the payload that is table."""
        flat = prepare(symbols, width)
        size = native.load().gossamer_rans_table_bytes(native.address(flat), flat.size, width)
        return native.checked(size, "rans")
