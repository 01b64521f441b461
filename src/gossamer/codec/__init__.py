"""Integers <-> bytes: the entropy coders of the file, and the index of sparse arrays.

Every class here is a coder: `tag`, `encode(symbols, width)`, `decode(payload, count, width)`,
`cost_bytes(symbols, width)`. Symbols are unsigned integers below 2**width, width 1..16. `choose` codes a
field by the cheapest.
"""

from __future__ import annotations

from . import gaps as gaps
from .adaptive import Adaptive as Adaptive
from .bitpack import Bitpack as Bitpack
from .choose import Coded as Coded
from .choose import choose as choose
from .choose import costs as costs
from .choose import decode as decode
from .huffman import Huffman as Huffman
from .rans import Rans as Rans
from .scatter import lookup as lookup
from .scatter import scatter as scatter

__all__ = ["Bitpack", "Huffman", "Rans", "Adaptive"]
