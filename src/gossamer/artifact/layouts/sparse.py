"""sparse: zero but for some entries, which are a node of their own.

w[positions] = values, zero elsewhere

values: inner node [n], in C order of the positions
gaps or bitmap, and rows, cols, order: see `artifact.positions`
"""

from __future__ import annotations

import numpy as np

from ... import codec
from ...errors import HeaderError
from ..outline import Outline, rows_and_columns
from ..positions import count_entries, decode_positions, scan_size
from ..stored import Ints, Stored


def check(outline: Outline, place: str) -> None:
    scan = "bitmap" if "bitmap" in outline.fields else "gaps"
    ints, options = (scan, "rows", "cols"), {"order": range(2)}
    outline.expect(place, ints=ints, optional=("rows", "cols"), inner=("values",), options=options)
    for name in {"rows", "cols", "bitmap"} & set(outline.fields):
        if outline.fields[name].width != 1:
            raise HeaderError(f"{place}: field {name!r} of layout 'sparse' must hold integers of 1 bit.")
    rows, columns = rows_and_columns(outline.shape)
    for name, size in (("rows", rows), ("cols", columns)):
        if name in outline.fields:
            outline.count(place, name, size)
    entries = outline.inner["values"].shape
    if len(entries) != 1:
        raise HeaderError(
            f"{place}: the values of layout 'sparse' have shape {entries}, but must have one axis."
        )
    symbols = outline.fields[scan].count
    if not entries[0] <= symbols <= outline.numel:
        raise HeaderError(
            f"{place}: {entries[0]} entries in {symbols} symbols of {scan!r} do not fit {outline.shape}."
        )


def verify(stored: Stored, place: str) -> None:
    total = scan_size(stored.fields, stored.shape)
    entries = stored.inner["values"].shape[0]
    bitmap = stored.fields.get("bitmap")
    if bitmap is not None:
        found, reach = int(np.count_nonzero(bitmap.values)), bitmap.values.size
        if reach != total:
            raise HeaderError(f"{place}: a bitmap of {reach} places, but {total} are scanned.")
    else:
        gaps = stored.fields["gaps"]
        assert isinstance(gaps, Ints)  # `check` saw its width
        found = count_entries(gaps)
        reach = int(gaps.values.sum(dtype=np.int64)) + found
        if reach > total:
            raise HeaderError(f"{place}: the gaps reach place {reach} of {total}.")
    if found != entries:
        raise HeaderError(f"{place}: {found} positions for {entries} values.")


def rebuild(stored: Stored) -> np.ndarray:
    from . import rebuild as rebuild_any

    values = rebuild_any(stored.inner["values"])
    gaps, plain = stored.fields.get("gaps"), len(stored.fields) == 1 and not stored.options.get("order")
    if plain and isinstance(gaps, Ints):
        return codec.scatter(gaps.values, gaps.width, values, int(np.prod(stored.shape))).reshape(
            stored.shape
        )
    dense = np.zeros(stored.shape, np.float32)
    if plain:
        dense.reshape(-1)[stored.fields["bitmap"].values.astype(np.uint8, copy=False).view(np.bool_)] = values
        return dense
    dense.reshape(-1)[decode_positions(stored.fields, stored.options, stored.shape)] = values
    return dense
