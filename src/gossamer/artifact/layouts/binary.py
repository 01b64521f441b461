"""binary: sums of signs with a scale each (binary weights; several bases for ABC-Net).

    w[o, i] = scale[0, o] s[0, o, i] + ... + scale[M-1, o] s[M-1, o, i],   s = 1 - 2 sign, added in float32 from the left

    signs: ints of 1 bit [M * numel], 0 = +1, 1 = -1      scale: floats [M], or [M * O]      bases: option M, 1 if absent

The tensor is seen as a matrix [O, I] of its first dimension and all others.
"""

from __future__ import annotations

import numpy as np

from ...errors import HeaderError
from ..outline import Outline, rows_and_columns
from ..stored import Stored

MAX_BASES = 16


def check(outline: Outline, place: str) -> None:
    outline.expect(place, ints=("signs",), floats=("scale",), options={"bases": range(2, MAX_BASES + 1)})
    bases, (rows, _) = outline.options.get("bases", 1), rows_and_columns(outline.shape)
    outline.count(place, "signs", bases * outline.numel)
    outline.count(place, "scale", bases, bases * rows)
    if (width := outline.fields["signs"].width) != 1:
        raise HeaderError(f"{place}: signs of layout 'binary' have 1 bit, not {width}.")


def verify(stored: Stored, place: str) -> None:
    """Every sign and every scale is allowed."""


@np.errstate(over="ignore", invalid="ignore")  # a hostile scale may be huge or NaN
def rebuild(stored: Stored) -> np.ndarray:
    rows, columns = rows_and_columns(stored.shape)
    bases = stored.options.get("bases", 1)
    signs = stored.fields["signs"].values.reshape(bases, rows, columns)
    scale = np.asarray(stored.fields["scale"].values, np.float32).reshape(bases, -1, 1)
    dense = np.zeros((rows, columns), np.float32)
    for one, factor in zip(signs, scale, strict=True):
        plane = (
            np.broadcast_to(factor, (rows, columns))
            if factor.size != rows
            else np.repeat(factor, columns, axis=1)
        )
        dense += np.where(one == 0, plane, -plane)
    return dense.reshape(stored.shape)
