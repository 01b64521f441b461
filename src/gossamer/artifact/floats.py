"""Floats as bytes: float32, float16 and bfloat16, little-endian.

bfloat16 is the upper half of a float32 (8 exponent bits, 7 fraction bits); numpy has no such type, so it is
held as uint16. Rounding is to nearest, ties to even, in both 16-bit types; a value is rounded once, by
`round_to`, and written exactly.

Raises: ArtifactError when a finite value has no finite neighbour in float16 (above 65504).
"""

from __future__ import annotations

import numpy as np

from ..errors import ArtifactError, nearest

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """The bfloat16 nearest to each float32 value, as uint16."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    upper = (rounded >> np.uint32(16)).astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():  # the carry could turn a NaN into an infinity
        upper = np.where(nan, (bits >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40), upper)
    return upper


def _from_bfloat16_bits(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` [any shape] rounded to `dtype`, returned as float32."""
    values = np.asarray(values, dtype=np.float32)
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        return _from_bfloat16_bits(bfloat16_bits(values)).reshape(values.shape)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        lost = np.isinf(half) & np.isfinite(values)
        if lost.any():
            worst = float(np.abs(values[lost]).max())
            raise ArtifactError(f"float16 ends at 65504, but a value is {worst:g}. Use bfloat16 or float32.")
        return half.astype(np.float32)
    raise ArtifactError(f"unknown float type {dtype!r}. {nearest(dtype, ITEMSIZE)}")


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    """`values` in C order as little-endian `dtype`."""
    exact = np.ascontiguousarray(round_to(values, dtype))
    if dtype == "float32":
        return exact.astype("<f4", copy=False).tobytes()
    if dtype == "float16":
        return exact.astype("<f2").tobytes()
    return bfloat16_bits(exact).astype("<u2", copy=False).tobytes()


def from_bytes(data: bytes, dtype: str) -> np.ndarray:
    """The inverse of `to_bytes`: a flat float32 array (`data` holds whole values, the reader checks)."""
    if dtype == "float32":
        return np.frombuffer(data, dtype="<f4").astype(np.float32)
    if dtype == "float16":
        return np.frombuffer(data, dtype="<f2").astype(np.float32)
    return _from_bfloat16_bits(np.frombuffer(data, dtype="<u2"))
