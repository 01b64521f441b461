"""uniform: equally spaced values (uniform quantization).

    w[o, i] = (codes[o, i] - offset) * scale[g]       in float32; the difference is exact

    codes: ints [numel]      scale: floats [1], [O], or [O * ceil(I / group)]      offset: option, 0 if absent

The tensor is seen as a matrix [O, I] of its first dimension and all others. g is 0, o, or the group of
consecutive inputs, o * ceil(I / group) + i // group.
"""

from __future__ import annotations

import numpy as np

from ... import codec
from ..limits import MAX_OPTION
from ..outline import Outline, rows_and_columns
from ..stored import Ints, Stored


def check(outline: Outline, place: str) -> None:
    options = {"offset": range(2**16 + 1), "group": range(1, MAX_OPTION + 1)}
    outline.expect(place, ints=("codes",), floats=("scale",), options=options)
    outline.count(place, "codes", outline.numel)
    rows, columns = rows_and_columns(outline.shape)
    group = outline.options.get("group")
    if group:
        outline.count(place, "scale", rows * -(-columns // group))
    else:
        outline.count(place, "scale", 1, rows)


def verify(stored: Stored, place: str) -> None:
    """Every code and every scale is allowed."""


@np.errstate(over="ignore", invalid="ignore")  # a hostile scale may be huge or NaN
def rebuild(stored: Stored) -> np.ndarray:
    codes = stored.fields["codes"]
    scale: np.ndarray = np.asarray(stored.fields["scale"].values, np.float32).ravel()
    offset = stored.options.get("offset", 0)
    rows, columns = rows_and_columns(stored.shape)
    if scale.size == 1 and isinstance(codes, Ints):
        table = (np.arange(2**codes.width) - offset).astype(np.float32) * scale
        return codec.lookup(codes.values, table).reshape(stored.shape)
    dense = codes.values.reshape(rows, columns).astype(np.float32)
    dense -= np.float32(offset)
    if not dense.size:
        return dense.reshape(stored.shape)
    scale = scale.reshape(rows, -1)
    group = stored.options.get("group", columns)
    if group and columns % group == 0:
        dense.reshape(rows, -1, group)[...] *= scale[:, :, None]
    else:
        dense *= np.repeat(scale, max(group, 1), axis=1)[:, :columns]
    return dense.reshape(stored.shape)
