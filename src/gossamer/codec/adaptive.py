"""Adaptive: a binary range coder whose probabilities are learnt on the way, so it stores no table.

    p <- p + (seen - p) / (n + 2),   n = bits this model has seen

A symbol is a walk down a tree of bits, or an Elias-gamma class and its leading bits. The encoder tries both,
each with and without a quick second estimate and the previous symbol as context, and for up to 16,384
symbols a tree that starts as a bell or an exponential, named in fifteen bits; it stores the best. It suits
fields of hundreds to some thousands of symbols, where a table would cost as much as it saves. Decoding is
slow (20 to 60 million symbols per second), so `choose` offers it up to LIMIT symbols only.

Source: Martin 1979 (range coding); Krichevsky and Trofimov 1981 (the estimate).
"""

from __future__ import annotations

import numpy as np

from .. import native
from .symbols import Buffer, prepare, read


class Adaptive:
    """Adaptive binary range coding, no table."""

    tag = "adaptive"
    LIMIT = 1 << 20

    @staticmethod
    def encode(symbols: np.ndarray, width: int) -> bytes:
        return native.written("adaptive_encode", prepare(symbols, width), width)

    @staticmethod
    def decode(payload: Buffer, count: int, width: int) -> np.ndarray:
        return read("adaptive", payload, count, width)

    @staticmethod
    def cost_bytes(symbols: np.ndarray, width: int) -> int:
        """The exact size; only encoding tells, as the code depends on the order of symbols."""
        return len(Adaptive.encode(symbols, width))
