"""codebook: every weight is one of K shared values.

w = centroids[codes]

codes: ints [numel], below K      centroids: floats [K]
"""

from __future__ import annotations

import numpy as np

from ... import codec
from ...errors import HeaderError
from ..outline import Outline
from ..stored import Stored


def check(outline: Outline, place: str) -> None:
    outline.expect(place, ints=("codes",), floats=("centroids",))
    outline.count(place, "codes", outline.numel)
    centroids = outline.fields["centroids"].count
    width = outline.fields["codes"].width
    if centroids > 2**width or (outline.numel and not centroids):
        raise HeaderError(f"{place}: {centroids} centroids cannot be told apart by codes of {width} bits.")


def verify(stored: Stored, place: str) -> None:
    codes, centroids = stored.fields["codes"].values, stored.fields["centroids"].values
    if codes.size and int(codes.max()) >= centroids.size:
        raise HeaderError(f"{place}: code {codes.max()} points beyond the {centroids.size} centroids.")


def rebuild(stored: Stored) -> np.ndarray:
    return codec.lookup(stored.fields["codes"].values, stored.fields["centroids"].values).reshape(
        stored.shape
    )
