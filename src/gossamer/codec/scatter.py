"""From stored integers to a dense float32 array, natively: the inner loops of the layouts.

    scatter   dense = 0; dense[position of the j-th entry] = values[j], positions given as gap symbols
    lookup    dense[i] = centroids[codes[i]]

Raises: CodecError when symbols lead outside the array, or a code has no centroid.
"""

from __future__ import annotations

import numpy as np

from .. import native
from .symbols import check_width, dtype_of


def scatter(symbols: np.ndarray, width: int, values: np.ndarray, total: int) -> np.ndarray:
    """Dense float32 [total] from gap symbols and one value per entry."""
    check_width(width)
    flat = np.ascontiguousarray(symbols, np.uint16).reshape(-1)
    entries = np.ascontiguousarray(values, np.float32).reshape(-1)
    dense = np.empty(total, np.float32)
    code = native.load().gossamer_scatter(
        native.address(flat),
        flat.size,
        width,
        native.address(entries),
        entries.size,
        native.address(dense),
        total,
    )
    native.checked(code, f"scatter: {flat.size} gap symbols and {entries.size} values for {total} elements")
    return dense


def lookup(codes: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Centroids by code, float32 of the shape of `codes` (uint8 or uint16)."""
    width = 8 if codes.dtype == np.uint8 else 16
    flat = np.ascontiguousarray(codes, dtype_of(width)).reshape(-1)
    table = np.ascontiguousarray(centroids, np.float32).reshape(-1)
    dense = np.empty(flat.size, np.float32)
    code = native.load().gossamer_lookup(
        native.address(flat), flat.size, width, native.address(table), table.size, native.address(dense)
    )
    native.checked(code, f"lookup: {flat.size} codes for {table.size} centroids")
    return dense.reshape(codes.shape)
