"""codes: the integers behind a weight, where its format is integers times a scale.

    dense = codes * scale        codes: -128..127        scale: float32 [1], or [R] for the rows of the first axis

What the file keeps is the format's own tree of layouts with the scale taken out: `uniform` becomes `integers`, inside
`sparse` and as the centroids of `codebook` too, and so does `binary`. So pruned positions and shared values stay as small as
they were.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..artifact import Floats, Ints, Stored, layouts
from ..formats import WeightFormat
from ..formats.base import Parts

RANGE = (-128, 127)


@dataclass(frozen=True)
class Codes:
    """`values`: int8 of the weight's shape; `stored` rebuilds them."""

    values: np.ndarray
    scale: np.ndarray
    stored: Stored


class NoCodesError(Exception):
    """Why a weight is not integers times a scale; becomes a note, never an error of the caller."""


def codes_of(format: WeightFormat, parts: Parts, dense: np.ndarray) -> Codes:
    """The codes of a weight whose value is `dense`. Raises NoCodesError with the reason where there are none."""
    stored = format.store(*parts)
    tree, scale = _without_scale(stored, _leaf_scale(format, parts))
    if scale.size not in (1, dense.shape[0] if dense.ndim else 1) or (scale.size > 1 and stored.inner):
        raise NoCodesError(f"it has {scale.size} scales, which are not one per row")
    values = layouts.rebuild(tree)
    if values.size and not (values.min() >= RANGE[0] and values.max() <= RANGE[1]):
        raise NoCodesError(f"its codes {values.min():g}..{values.max():g} do not fit 8 bits")
    if not np.array_equal(values * scale.reshape(-1, *[1] * (values.ndim - 1)), dense):
        raise NoCodesError("its codes times their scale are not its values")
    return Codes(values.astype(np.int8), scale, tree)


def whole_numbers(values: np.ndarray) -> Stored:
    """Integers of up to 32 bits [any shape] as the layout `integers`."""
    low = min(int(values.min(initial=0)), 0)
    shifted = values.astype(np.int64) - low
    width = max(int(shifted.max(initial=0)).bit_length(), 1)
    fields = {"codes": _narrow(shifted & 0xFFFF, min(width, 16))}
    if width > 16:
        fields["high"] = _narrow(shifted >> 16, width - 16)
    return Stored("integers", tuple(values.shape), fields, options={"offset": -low})


def _narrow(values: np.ndarray, width: int) -> Ints:
    return Ints(values.reshape(-1).astype(np.uint8 if width <= 8 else np.uint16), width)


def _without_scale(stored: Stored, leaf: np.ndarray | None) -> tuple[Stored, np.ndarray]:
    """The tree that rebuilds codes, and the scale that was taken out; `leaf`: that of the format's only leaf."""
    if stored.layout == "uniform":
        if "group" in stored.options:
            raise NoCodesError("it has a scale per group of inputs")
        options = {"offset": stored.options.get("offset", 0)}
        tree = Stored("integers", stored.shape, {"codes": stored.fields["codes"]}, options=options)
        return tree, np.asarray(stored.fields["scale"].values, np.float32).reshape(-1)
    if stored.layout == "binary" and "bases" not in stored.options:
        signs = 1 - 2 * stored.fields["signs"].values.astype(np.int64)
        return whole_numbers(signs.reshape(stored.shape)), np.asarray(stored.fields["scale"].values)
    if stored.layout == "codebook" and "centroids" in stored.fields and leaf is not None and leaf.size == 1:
        numbers = np.rint(stored.fields["centroids"].values / leaf).astype(np.int64)
        table = {"centroids": whole_numbers(numbers)}
        return dataclasses.replace(stored, fields={"codes": stored.fields["codes"]}, inner=table), leaf
    if len(stored.inner) == 1 and not any(isinstance(field, Floats) for field in stored.fields.values()):
        [(name, node)] = stored.inner.items()
        tree, scale = _without_scale(node, leaf)
        return dataclasses.replace(stored, inner={name: tree}), scale
    raise NoCodesError(f"its layout {stored.layout} is not integers times a scale")


def _leaf_scale(format: WeightFormat, parts: Parts) -> np.ndarray | None:
    """The scale at the only leaf of a format's tree, where that leaf is a grid."""
    inner = format.inner()
    if len(inner) > 1:
        return None
    if inner:
        [(name, leaf)] = inner.items()
        return _leaf_scale(leaf, format.split(*parts)[1][name])
    stored = format.store(*parts)
    return np.asarray(stored.fields["scale"].values, np.float32) if stored.layout == "uniform" else None
