"""dense: the values themselves.

values: floats [numel]
"""

from __future__ import annotations

import numpy as np

from ..outline import Outline
from ..stored import Stored


def check(outline: Outline, place: str) -> None:
    outline.expect(place, floats=("values",))
    outline.count(place, "values", outline.numel)


def verify(stored: Stored, place: str) -> None:
    """Every float is allowed."""


def rebuild(stored: Stored) -> np.ndarray:
    return np.asarray(stored.fields["values"].values, dtype=np.float32).reshape(stored.shape)
