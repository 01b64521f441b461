"""Positions: where the entries of a sparse tensor lie, in the cheapest of several exact codings.

The tensor is seen as a matrix [R, C] of its first dimension and all others. Its fields are one of

    gaps     ints of w bits: zeros before each entry; 2**w - 1 skips that many zeros and holds no entry
    bitmap   ints of 1 bit: 1 where there is an entry

and, where they pay, `rows` [R] and `cols` [C], ints of 1 bit: only rows and columns marked 1 are scanned,
which makes dead neurons nearly free. The option `order` is 1 when the scan runs down the columns; the entries
themselves are always in C order.

A coding is shortlisted by the entropy of its symbols, for gaps from one histogram; the shortlist is then
coded for good, and the smallest wins. Near ties go to what decodes faster: each symbol per entry counts for
0.05 % of the size, and a scan down the columns for 0.1 %.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .. import codec
from ..codec import gaps as gap_coder
from .outline import rows_and_columns
from .stored import Field, Ints

GAP_WIDTHS = range(2, 13)  # gaps of 1 bit would be a bitmap
_EXTRA_FIELD_BYTES = 8  # checksum and header entry of `rows` or `cols`
_SHORTLIST = 4


@dataclass(frozen=True)
class _Scan:
    """One way to walk the matrix: its side fields and the positions of the entries in the scan."""

    side: dict[str, Field]
    options: dict[str, int]
    positions: np.ndarray
    total: int


def encode_positions(mask: np.ndarray) -> tuple[dict[str, Field], dict[str, int]]:
    """Fields and options of the layout `sparse` for the entries where `mask` [shape] is true."""
    rows, columns = rows_and_columns(mask.shape)
    matrix = np.ascontiguousarray(mask, dtype=bool).reshape(rows, columns)
    drafts = []
    for scan in _scans(matrix):
        side_bytes = sum(_coded_bytes(field) + _EXTRA_FIELD_BYTES for field in scan.side.values())
        for width, symbols, size in (*_gap_estimates(scan), _bitmap_estimate(scan)):
            drafts.append((_weighted(side_bytes + size, scan, symbols), scan, width))
    drafts.sort(key=lambda draft: draft[0])
    finals = [_final(scan, width) for _, scan, width in drafts[:_SHORTLIST]]
    _, fields, options = min(finals, key=lambda final: final[0])
    return fields, options


def decode_positions(
    fields: Mapping[str, Field], options: Mapping[str, int], shape: tuple[int, ...]
) -> np.ndarray:
    """int64 [n]: the flat C-order indices of the entries, ascending; the inverse of `encode_positions`."""
    rows, columns = rows_and_columns(shape)
    alive_rows, alive_columns = _alive(fields, "rows", rows), _alive(fields, "cols", columns)
    height, breadth = alive_rows.size, alive_columns.size
    scanned = _scanned(fields, height * breadth)
    if not options.get("order") and height == rows and breadth == columns:
        return scanned
    if not scanned.size:
        return scanned
    if options.get("order"):
        column, row = np.divmod(scanned, height)
        return np.sort(alive_rows[row] * columns + alive_columns[column])
    row, column = np.divmod(scanned, breadth)
    flat: np.ndarray = alive_rows[row] * columns + alive_columns[column]
    return flat


def scan_size(fields: Mapping[str, Field], shape: tuple[int, ...]) -> int:
    """How many places the scan visits: alive rows times alive columns."""
    rows, columns = rows_and_columns(shape)
    height = int(np.count_nonzero(fields["rows"].values)) if "rows" in fields else rows
    breadth = int(np.count_nonzero(fields["cols"].values)) if "cols" in fields else columns
    return height * breadth


def count_entries(gaps: Ints) -> int:
    """How many of the symbols are entries rather than skips."""
    return int(np.count_nonzero(gaps.values != 2**gaps.width - 1))


def _scanned(fields: Mapping[str, Field], total: int) -> np.ndarray:
    bitmap = fields.get("bitmap")
    if bitmap is not None:
        return np.flatnonzero(bitmap.values)
    gaps = fields["gaps"]
    assert isinstance(gaps, Ints)  # the layout's check
    positions: np.ndarray = gap_coder.decode(gaps.values, gaps.width, count_entries(gaps), total)
    return positions


def _alive(fields: Mapping[str, Field], name: str, size: int) -> np.ndarray:
    return np.flatnonzero(fields[name].values) if name in fields else np.arange(size)


def _scans(matrix: np.ndarray) -> list[_Scan]:
    """Every scan worth trying: with and without dead rows and columns, along rows and down columns."""
    rows, columns = matrix.shape
    alive_rows, alive_columns = matrix.any(axis=1), matrix.any(axis=0)
    crops_rows = [False, True] if rows > 1 and not alive_rows.all() else [False]
    crops_columns = [False, True] if columns > 1 and not alive_columns.all() else [False]
    scans = []
    for crop_rows, crop_columns in itertools.product(crops_rows, crops_columns):
        side: dict[str, Field] = {}
        kept = matrix
        if crop_rows:
            side["rows"] = Ints(np.asarray(alive_rows, np.uint8), 1)
            kept = kept[alive_rows]
        if crop_columns:
            side["cols"] = Ints(np.asarray(alive_columns, np.uint8), 1)
            kept = kept[:, alive_columns]
        scans.append(_Scan(side, {}, np.flatnonzero(kept), kept.size))
        if min(kept.shape) > 1:
            scans.append(_Scan(side, {"order": 1}, np.flatnonzero(kept.T), kept.size))
    return scans


def _weighted(size: float, scan: _Scan, symbols: int) -> float:
    """The size in bytes, and a little more for what decodes slowly."""
    return size * (1 + 0.0005 * symbols / max(scan.positions.size, 1) + 0.001 * bool(scan.options))


def _gap_estimates(scan: _Scan) -> list[tuple[int, int, float]]:
    """(width, symbols, bytes at their entropy) of every width."""
    gaps, weights = _histogram(np.diff(scan.positions, prepend=-1) - 1)
    estimates = []
    for width in GAP_WIDTHS:
        escape = 2**width - 1
        skips = int((gaps // escape * weights).sum())
        symbols = np.bincount(gaps % escape, weights=weights, minlength=1)
        symbols = np.append(symbols[symbols > 0], skips) if skips else symbols[symbols > 0]
        size = _entropy_bytes(symbols) + symbols.size / 2  # half a byte of table each
        estimates.append((width, scan.positions.size + skips, size))
    return estimates


def _histogram(gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct gaps and how often each occurs."""
    if gaps.size and int(gaps.max()) > 2**20:
        return np.unique(gaps, return_counts=True)
    counts = np.bincount(gaps, minlength=1)
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]


def _bitmap_estimate(scan: _Scan) -> tuple[int, int, float]:
    """The same for the bitmap, as width 0."""
    counts = np.array([scan.positions.size, scan.total - scan.positions.size], dtype=float)
    return 0, scan.total, _entropy_bytes(counts[counts > 0])


def _entropy_bytes(counts: np.ndarray) -> float:
    return float((counts * np.log2(counts.sum() / counts)).sum()) / 8 if counts.size else 0.0


def _final(scan: _Scan, width: int) -> tuple[float, dict[str, Field], dict[str, int]]:
    """Cost, fields and options of one draft, coded for good."""
    if width:
        field = {"gaps": Ints(gap_coder.encode(scan.positions, scan.total, width), width)}
    else:
        bitmap = np.zeros(scan.total, np.uint8)
        bitmap[scan.positions] = 1
        field = {"bitmap": Ints(bitmap, 1)}
    fields: dict[str, Field] = {**scan.side, **field}
    size = sum(_coded_bytes(part) + _EXTRA_FIELD_BYTES for part in fields.values())
    symbols = sum(part.values.size for part in field.values())
    return _weighted(size, scan, symbols), fields, scan.options


def _coded_bytes(field: Field) -> int:
    assert isinstance(field, Ints)  # positions hold no floats
    return len(codec.choose(field.values, field.width).payload)
