"""sparse: weights stored as sparse(values=codebook) with at most 16 values, as fields of the operator SparseGemm.

    bytes     uint8  [size]              run << 4 | code, column by column (native/sparse_gemv/format.h)
    counts    uint16 [streams, columns]  bytes of each column of each stream
    starts    int64  [streams + 1]       the rows of each stream, which hold about equally many entries
    codebook  float32 [K <= 16]

The matrix is seen as [rows = outputs, columns = inputs]. Nothing dense is made on the way: positions and codes as they
are stored become bytes, in 40 ms for four million entries.
Raises: CodecError for positions or codes beyond the matrix (a checked file has none).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import native
from ..artifact import layouts
from ..artifact.outline import Outline
from ..artifact.positions import decode_positions
from ..artifact.stored import Stored
from . import build
from .ports import Port

OPERATOR = "SparseGemm"
CODES = 16
MAX_ROWS = 65_535  # of a stream
LEAST_ROWS = 256  # of a stream, unless the matrix has fewer: a column costs each stream a table
NAMES = ("bytes", "counts", "starts", "codebook")


@dataclass(frozen=True)
class SparseWeight:
    """The fields of one matrix [rows, columns]."""

    bytes: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    codebook: np.ndarray
    rows: int
    columns: int

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The inputs of the operator after x, in order."""
        return self.bytes, self.counts.reshape(-1), self.starts, self.codebook

    @property
    def size_bytes(self) -> int:
        """Memory of all fields."""
        return sum(array.nbytes for array in self.arrays)


def fits(node: Outline) -> bool:
    """True for the layouts this module reads; only the header is looked at."""
    values = node.inner.get("values")
    if node.layout != "sparse" or len(node.shape) != 2 or values is None or values.layout != "codebook":
        return False
    nested = values.inner.get("centroids")
    centroids = values.fields["centroids"].count if nested is None else nested.shape[0]
    return 1 <= centroids <= CODES and min(node.shape) >= 1


def of(stored: Stored, *, transposed: bool = False, streams: int = 1) -> SparseWeight:
    """The fields of a stored matrix [outputs, inputs]; `transposed`: it is stored as [inputs, outputs]."""
    values = stored.inner["values"]
    nested = values.inner.get("centroids")
    centroids = values.fields["centroids"].values if nested is None else layouts.rebuild(nested)
    positions = decode_positions(stored.fields, stored.options, stored.shape)
    return packed(
        positions,
        values.fields["codes"].values,
        np.asarray(centroids, np.float32).reshape(-1),
        stored.shape,
        transposed=transposed,
        streams=streams,
    )


def packed(
    positions: np.ndarray,
    codes: np.ndarray,
    codebook: np.ndarray,
    shape: tuple[int, ...],
    *,
    transposed: bool = False,
    streams: int = 1,
) -> SparseWeight:
    """Rising C-order `positions` int64 [n] of a matrix `shape`, their `codes` [n], and what the codes stand for."""
    rows, columns = shape[::-1] if transposed else shape
    positions = np.ascontiguousarray(positions, np.int64)
    codes = np.ascontiguousarray(codes, np.uint8)
    starts = _starts(positions, shape, transposed, streams)
    counts = np.empty((starts.size - 1, columns), np.uint16)
    address, pack = native.address, native.load().gossamer_sparse_pack
    matrix = (address(positions), address(codes), codes.size, rows, columns, int(transposed))
    fixed = (*matrix, address(starts), starts.size - 1, address(counts))
    size = native.checked(pack(*fixed, None, 0), "sparse weight")
    data = np.empty(size, np.uint8)
    native.checked(pack(*fixed, address(data), size), "sparse weight")
    return SparseWeight(data, counts, starts, codebook.astype(np.float32, copy=False), rows, columns)


def model(weight: SparseWeight, bias: np.ndarray | None = None, batch: int | str = "batch") -> bytes:
    """A model of one node, y [batch, rows] = x [batch, columns] W^T + bias; for tests, benchmarks and other engines."""
    given = dict(zip(NAMES, weight.arrays, strict=True)) | ({} if bias is None else {"bias": bias})
    node = build.node(OPERATOR, ["x", *given], ["y"], name="product", domain=build.DOMAIN)
    return build.model(
        [node],
        [Port("x", (batch, weight.columns), "float32")],
        [Port("y", (batch, weight.rows), "float32")],
        given,
    )


def _starts(positions: np.ndarray, shape: tuple[int, ...], transposed: bool, streams: int) -> np.ndarray:
    """Rows of each of at most `streams` streams (more, where one would own too many rows)."""
    rows = shape[1] if transposed else shape[0]
    streams = max(min(streams, rows // LEAST_ROWS), -(-rows // MAX_ROWS), 1)
    even = np.linspace(0, rows, streams + 1).astype(np.int64)
    if streams == 1 or rows > MAX_ROWS:
        return even
    row = positions % rows if transposed else positions // shape[1]
    below = np.concatenate(
        [[0], np.cumsum(np.bincount(row, minlength=rows) + 1)]
    )  # + 1: an empty row costs a little
    cuts = np.searchsorted(below, np.linspace(0, below[-1], streams + 1)[1:-1])
    starts = np.concatenate([[0], cuts, [rows]]).astype(np.int64)
    return starts if (np.diff(starts) > 0).all() else even
