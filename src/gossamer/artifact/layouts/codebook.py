"""codebook: every weight is one of K shared values.

w = centroids[codes]

codes: ints [numel], below K      centroids: floats [K], or an inner node [K]
"""

from __future__ import annotations

import numpy as np

from ... import codec
from ...errors import HeaderError
from ..outline import Outline
from ..stored import Stored


def check(outline: Outline, place: str) -> None:
    nested = "centroids" in outline.inner
    outline.expect(
        place,
        ints=("codes",),
        floats=() if nested else ("centroids",),
        inner=("centroids",) if nested else (),
    )
    outline.count(place, "codes", outline.numel)
    if nested and len(outline.inner["centroids"].shape) != 1:
        raise HeaderError(
            f"{place}: the centroids of layout 'codebook' have shape {outline.inner['centroids'].shape}, "
            "but must have one axis."
        )
    centroids = outline.inner["centroids"].shape[0] if nested else outline.fields["centroids"].count
    width = outline.fields["codes"].width
    if centroids > 2**width or (outline.numel and not centroids):
        raise HeaderError(f"{place}: {centroids} centroids cannot be told apart by codes of {width} bits.")


def verify(stored: Stored, place: str) -> None:
    codes, nested = stored.fields["codes"].values, stored.inner.get("centroids")
    centroids = stored.fields["centroids"].values.size if nested is None else nested.shape[0]
    if codes.size and int(codes.max()) >= centroids:
        raise HeaderError(f"{place}: code {codes.max()} points beyond the {centroids} centroids.")


def rebuild(stored: Stored) -> np.ndarray:
    from . import rebuild as rebuild_any

    nested = stored.inner.get("centroids")
    table = stored.fields["centroids"].values if nested is None else rebuild_any(nested)
    return codec.lookup(stored.fields["codes"].values, table.astype(np.float32, copy=False)).reshape(
        stored.shape
    )
