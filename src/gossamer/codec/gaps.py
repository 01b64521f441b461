"""Gaps: where the entries of a sparse array lie, as small symbols.

Two forms. Ours spends the largest symbol on an escape that is no entry:

    symbol g < 2^width - 1     skip g zeros, then an entry
    symbol 2^width - 1         skip 2^width - 1 zeros, no entry

The paper's pads with an entry of value 0, which also costs a code in the stream of values:

    z in 0..2^bits - 1 zeros, then an entry;   pos = cumsum(z + 1) - 1
    a gap of 2^bits zeros or more: padding entries (z = 2^bits - 1), each consuming 2^bits positions

Expected paddings per entry at density p, entries independent: pi = q / (1 - q), q = (1 - p)^(2^bits).

Raises: OptionError for positions that are unsorted, repeated or outside; CodecError for symbols no encoder
wrote.
Source: Han, Mao, Dally, arXiv:1510.00149, section 2 and figure 2.
"""

from __future__ import annotations

import numpy as np

from .. import native
from ..errors import CodecError, OptionError
from .choose import costs
from .symbols import check_width

_EXACT = 1 << 20  # entries up to which the candidate widths are really encoded


def _checked_positions(positions: np.ndarray) -> np.ndarray:
    flat = np.asarray(positions)
    if flat.ndim != 1 or (flat.size and flat.dtype.kind not in "ui"):
        raise OptionError(
            f"gaps: received {flat.dtype} of shape {flat.shape}, expected integers in one dimension."
        )
    return np.ascontiguousarray(flat, np.int64)


def encode(positions: np.ndarray, total: int, width: int) -> np.ndarray:
    """Gap symbols, uint16, of sorted distinct positions in 0..total - 1."""
    check_width(width)
    where, library = _checked_positions(positions), native.load()
    count = library.gossamer_gaps_count(native.address(where), where.size, total, width)
    if count < 0:
        raise OptionError(
            f"gaps: positions must be sorted, distinct and in 0..{total - 1}; received {where.size} of them"
            + (f" from {where.min()} to {where.max()}." if where.size else ".")
        )
    symbols = np.empty(count, np.uint16)
    done = library.gossamer_gaps_encode(
        native.address(where), where.size, total, width, native.address(symbols), count
    )
    native.checked(done, "gaps")
    return symbols


def decode(symbols: np.ndarray, width: int, count_entries: int, total: int) -> np.ndarray:
    """Positions, int64 [count_entries], of gap symbols for an array of `total` elements."""
    check_width(width)
    flat, library = np.ascontiguousarray(symbols, np.uint16).reshape(-1), native.load()
    found = library.gossamer_gaps_entries(native.address(flat), flat.size, width, total)
    native.checked(found, f"gaps: {flat.size} symbols of {width} bits for {total} elements")
    if found != count_entries:
        raise CodecError(
            f"gaps: the symbols hold {found} entries, expected {count_entries}. Store them again."
        )
    positions = np.empty(found, np.int64)
    done = library.gossamer_gaps_decode(
        native.address(flat), flat.size, width, total, native.address(positions), found
    )
    native.checked(done, "gaps")
    return positions


def _estimated_bytes(gap_counts: np.ndarray, entries: int, width: int) -> float:
    """Entropy of the symbols this width gives, plus 3 bits of table per symbol that occurs."""
    escape = (1 << width) - 1
    gaps = np.arange(gap_counts.size)
    symbols = (
        np.bincount(gaps % escape, weights=gap_counts, minlength=escape + 1) if escape > 1 else np.zeros(2)
    )
    if escape == 1:
        symbols[0] = entries
    symbols[escape] = float((gap_counts * (gaps // escape)).sum())
    seen = symbols[symbols > 0]
    return float((seen * np.log2(seen.sum() / seen)).sum() / 8 + 3 * seen.size / 8)


def best_width(positions: np.ndarray, total: int) -> int:
    """The width whose gap symbols code smallest; of widths within 0.1 %, the one with the fewest symbols.

    The entropy of each width's symbols picks four candidates; the coders themselves decide between them
    (above 2**20 entries the entropy decides alone: it is then within a fraction of a percent).
    """
    where = _checked_positions(positions)
    if where.size == 0:
        return 1
    limit = 1 << 17  # longer gaps cost the same few escapes at every width that matters
    counts = np.empty(limit + 1, np.int64)
    code = native.load().gossamer_gaps_histogram(
        native.address(where), where.size, limit, native.address(counts)
    )
    if code < 0:
        encode(where, total, 16)  # says what is wrong with them
    estimates = {width: _estimated_bytes(counts, where.size, width) for width in range(1, 17)}
    ranked = sorted(estimates, key=lambda width: estimates[width])
    if where.size > _EXACT:
        sizes = estimates
    else:
        sizes = {width: min(costs(encode(where, total, width), width).values()) for width in ranked[:4]}
    # gaps of independent zeros have the same entropy at every width: take the form that decodes fastest
    enough = 1.001 * min(sizes.values())
    near = [width for width, size in sizes.items() if size <= enough]
    return max((width for width in near if width <= 8), default=min(near))


def relative_index(positions: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's form: z uint16 of every entry, and which of them are paddings (bool)."""
    check_width(bits)
    where = _checked_positions(positions)
    gaps = np.diff(where, prepend=np.int64(-1)) - 1
    if (gaps < 0).any():
        raise OptionError("gaps: positions must be sorted, distinct and not negative.")
    span = np.int64(1) << bits
    ends = np.cumsum(gaps // span + 1)  # paddings before each entry, and the entry itself
    count = int(ends[-1]) if where.size else 0
    z = np.full(count, span - 1, np.uint16)
    is_padding = np.ones(count, np.bool_)
    z[ends - 1] = gaps % span
    is_padding[ends - 1] = False
    return z, is_padding


def from_relative_index(z: np.ndarray, is_padding: np.ndarray) -> np.ndarray:
    """The positions of the entries that are no paddings, int64."""
    if z.shape != is_padding.shape:
        raise OptionError(
            f"gaps: z has shape {z.shape} but is_padding {is_padding.shape}; they must be equal."
        )
    ends = np.cumsum(z.astype(np.int64) + 1) - 1
    return np.asarray(ends[~is_padding])
