"""Limits: how large the parts of a file may be, and how much memory it may claim.

A file of a few bytes can honestly claim a large tensor (all weights equal), or lie about it. The reader adds
up what decoding would take, from the header alone, before it allocates anything.
"""

from __future__ import annotations

import math

from ..errors import HeaderError, LimitError

MAX_WIDTH = 16  # bits of one integer
MAX_DIMS = 8
MAX_DEPTH = 8  # nodes inside one another
MAX_OPTION = 2**31 - 1
MAX_HEADER = 256 * 1024  # bytes: some thousands of tensors, and parsed in well under a second
MAX_METADATA = 1024 * 1024  # bytes
MAX_METADATA_DEPTH = 32  # lists and objects inside one another


def default_limit(file_size: int) -> int:
    """Bytes of memory that a file of this size may claim for its decoded tensors."""
    return 64 * 2**20 + 1000 * file_size


def head_limit(frame_size: int) -> int:
    """Bytes that a compressed head of this size may expand to."""
    return 2**20 + 200 * frame_size


class Budget:
    """Adds up claims and refuses the one that passes `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.claimed = 0

    def claim(self, place: str, size: int) -> None:
        self.claimed += size
        if self.claimed > self.limit:
            raise LimitError(
                f"{place}: the file claims at least {self.claimed} bytes of memory, more than the limit of "
                f"{self.limit}. If you trust the file, pass a larger max_bytes."
            )

    def claim_array(self, place: str, shape: tuple[int, ...]) -> None:
        """A dense float32 array; a dimension of zero counts as one, so that none is too large for numpy."""
        if len(shape) > MAX_DIMS:
            raise HeaderError(f"{place}: {len(shape)} dimensions; at most {MAX_DIMS} are allowed.")
        self.claim(place, 4 * math.prod(max(dim, 1) for dim in shape))
