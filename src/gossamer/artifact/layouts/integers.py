"""integers: whole numbers, the codes of a quantized weight or bias without its scale.

    w = codes + 2^16 high - offset

    codes: ints [numel]      high: ints [numel], or absent      offset: option, 0 if absent, at most 2^16 without high

The array is float32, in which such numbers are exact; with `high` it is float64.
"""

from __future__ import annotations

import numpy as np

from ..limits import MAX_OPTION
from ..outline import Outline
from ..stored import Stored


def check(outline: Outline, place: str) -> None:
    most = MAX_OPTION if "high" in outline.fields else 2**16  # beyond, float32 would round
    outline.expect(place, ints=("codes", "high"), optional=("high",), options={"offset": range(most + 1)})
    outline.count(place, "codes", outline.numel)
    if "high" in outline.fields:
        outline.count(place, "high", outline.numel)


def verify(stored: Stored, place: str) -> None:
    """Every code is allowed; what the initialiser's type can hold is checked by `tensor.rebuild`."""


def rebuild(stored: Stored) -> np.ndarray:
    high = stored.fields.get("high")
    kind = np.float32 if high is None else np.float64
    values: np.ndarray = np.asarray(stored.fields["codes"].values, kind)
    if high is not None:
        values = values + high.values * 65536.0
    return (values - kind(stored.options.get("offset", 0))).reshape(stored.shape)
