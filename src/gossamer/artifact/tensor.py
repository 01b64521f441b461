"""Tensor and Artifact: what a .goss file holds, in memory.

`rebuild` turns one tensor into the array that the graph's initialiser holds:

    dense = layouts.rebuild(tensor.stored)              float32
    array = transpose(dense, tensor.perm) as tensor.dtype

float16 is rounded to nearest; bfloat16, which numpy lacks, is returned as its bits in uint16. An initialiser of
integers takes whole numbers within its range.

Raises: HeaderError for an initialiser of integers whose stored values are anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import HeaderError
from . import layouts
from .floats import bfloat16_bits
from .stored import Stored

DTYPES = ("float32", "float16", "bfloat16", "float64", "int8", "uint8", "int32")
INTEGERS = ("int8", "uint8", "int32")


@dataclass(frozen=True)
class Tensor:
    """One coded initialiser of the graph.

    name: the model's name ("conv1.weight"); initializer: the graph's name for it; perm: the transpose applied
    to the rebuilt array before it is handed to the graph; dtype: the initialiser's type in the graph.
    """

    name: str
    initializer: str
    stored: Stored
    perm: tuple[int, ...] | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Artifact:
    """A whole file: `graph` is an ONNX ModelProto without the coded initialisers; `metadata` is JSON."""

    graph: bytes
    tensors: tuple[Tensor, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def rebuild(tensor: Tensor) -> np.ndarray:
    """The array [transposed shape] that the graph's initialiser holds."""
    dense = layouts.rebuild(tensor.stored)
    if tensor.perm is not None:
        dense = np.ascontiguousarray(dense.transpose(tensor.perm))
    if tensor.dtype == "bfloat16":
        return bfloat16_bits(dense)
    if tensor.dtype in INTEGERS:
        return _whole(dense, tensor.dtype, f"tensor {tensor.name!r}")
    with np.errstate(over="ignore"):  # a value beyond float16 becomes infinite, as in the graph it came from
        return dense.astype(tensor.dtype, copy=False)


def _whole(dense: np.ndarray, dtype: str, place: str) -> np.ndarray:
    """`dense` as integers of `dtype`, in which every value must be exact."""
    limits = np.iinfo(dtype)
    low, high = (float(dense.min()), float(dense.max())) if dense.size else (0.0, 0.0)
    if not (low >= limits.min and high <= limits.max):  # NaN is refused too
        raise HeaderError(
            f"{place}: values {low:g}..{high:g} for an initialiser of {dtype}, which holds "
            f"{limits.min}..{limits.max}."
        )
    whole = dense.astype(dtype)
    if not np.array_equal(whole, dense):
        raise HeaderError(f"{place}: a value is not whole, but the initialiser holds {dtype}.")
    return whole
