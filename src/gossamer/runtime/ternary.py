"""ternary: weights of {minus, 0, plus} as fields of the operators TernaryGemm and TernaryConv.

    y[o] = scale[o] sum_i w[o, i] x[i] + bias[o]       w[o, i] = 0, values[0] or values[1], for the codes 0, 1 and 2

    codes    uint8   [O, kh, kw, ceil(C / 4)], or [O, ceil(I / 4)]    2 bits each, the first in the lowest (channels inside)
    values   float32 [2]
    scale    float32 [1] or [O]

Read from the layouts `uniform` (its codes minus its offset within -1, 0 and 1, a scale per tensor or output), `codebook`
(at most three centroids, one of them zero) and `binary` of one base, which has no zeros, each as it is stored; nothing dense
is made on the way.
Raises: OptionError for arrays that are no ternary weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..artifact import layouts
from ..artifact.outline import Outline
from ..artifact.stored import Stored
from ..errors import OptionError
from . import build
from .ports import Port
from .windows import Windows

GEMM, CONV = "TernaryGemm", "TernaryConv"
NAMES = ("codes", "values", "scale")
ZERO, FIRST, SECOND = 0, 1, 2


@dataclass(frozen=True)
class TernaryWeight:
    """The fields of one weight of the dense `shape`, [O, I] or [O, C / groups, kh, kw]."""

    codes: np.ndarray
    values: np.ndarray
    scale: np.ndarray
    shape: tuple[int, ...]

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The inputs of the operators after x, in order."""
        return self.codes, self.values, self.scale

    @property
    def size_bytes(self) -> int:
        """Memory of all fields."""
        return sum(array.nbytes for array in self.arrays)


def fits(node: Outline) -> bool:
    """True for what may be ternary, as far as the header tells; `of` looks at the codes."""
    if len(node.shape) not in (2, 4) or min(node.shape) < 1:
        return False
    if node.layout == "uniform":
        return 1 <= node.fields["codes"].width <= 2 and "group" not in node.options
    if node.layout == "binary":
        return "bases" not in node.options
    if node.layout != "codebook":
        return False
    nested = node.inner.get("centroids")
    return (node.fields["centroids"].count if nested is None else nested.shape[0]) <= 3


def of(stored: Stored, *, transposed: bool = False) -> TernaryWeight | None:
    """The fields of a stored weight, or None where its values are not ternary; `transposed`: it is stored as [I, O]."""
    signs = stored.layout == "binary"
    raw = stored.fields["signs" if signs else "codes"].values.reshape(stored.shape)
    if signs or stored.layout == "uniform":
        numbers = np.arange(4, dtype=np.float32) - np.float32(stored.options.get("offset", 0))
        meaning = np.array([1, -1], np.float32) if signs else numbers
        values, scale = np.array([-1, 1], np.float32), np.asarray(stored.fields["scale"].values, np.float32)
        if transposed and scale.size > 1:
            return None  # a scale per input
    else:
        nested = stored.inner.get("centroids")
        centroids = stored.fields["centroids"].values if nested is None else layouts.rebuild(nested)
        meaning = np.asarray(centroids, np.float32).reshape(-1)
        used = meaning[meaning != 0]
        if used.size > 2:
            return None
        values = np.resize(used if used.size else np.zeros(1, np.float32), 2)
        scale = np.ones(1, np.float32)
    table = np.full(meaning.size, 3, np.uint8)
    table[meaning == 0] = ZERO
    table[meaning == values[1]] = SECOND
    table[meaning == values[0]] = FIRST
    codes = table[raw]
    if codes.max() > SECOND:
        return None
    return packed(codes.T if transposed else codes, values, scale)


def packed(codes: np.ndarray, values: np.ndarray, scale: np.ndarray) -> TernaryWeight:
    """The fields of `codes` 0, 1 and 2, [O, I] or [O, C / groups, kh, kw]; values [2]; scale [1] or [O]."""
    if codes.ndim not in (2, 4) or not codes.size or values.size != 2 or scale.size not in (1, len(codes)):
        raise OptionError(
            f"ternary weight: received codes {codes.shape}, {values.size} values and {scale.size} scales, expected codes "
            "[outputs, inputs] or [outputs, channels, height, width] without an empty axis, 2 values, and a scale for "
            "all outputs or each."
        )
    inside = np.moveaxis(codes, 1, -1).astype(np.uint8)
    padded = np.pad(inside, [(0, 0)] * (inside.ndim - 1) + [(0, -inside.shape[-1] % 4)])
    four = padded.reshape(*padded.shape[:-1], -1, 4)
    data = four[..., 0] | four[..., 1] << 2 | four[..., 2] << 4 | four[..., 3] << 6
    return TernaryWeight(
        np.ascontiguousarray(data),
        np.ascontiguousarray(values, np.float32),
        np.ascontiguousarray(scale, np.float32).reshape(-1),
        codes.shape,
    )


def node(
    inputs: Sequence[str],
    output: str,
    shape: Sequence[int],
    windows: Windows | None = None,
    *,
    name: str = "",
) -> bytes:
    """The node that reads x, the fields and perhaps a bias; `shape` as in TernaryWeight."""
    if len(shape) == 2:
        return build.node(
            GEMM, inputs, [output], name=name, domain=build.DOMAIN, lists={"inputs": (shape[1],)}
        )
    windows = windows or Windows()
    lists = {"channels": (shape[1] * windows.group,), "kernel_shape": tuple(shape[2:])} | windows.lists()
    return build.node(CONV, inputs, [output], name=name, domain=build.DOMAIN, lists=lists)


def model(weight: TernaryWeight, bias: np.ndarray | None = None, *, windows: Windows | None = None) -> bytes:
    """A model of one node; for tests, benchmarks and other engines."""
    given = dict(zip(NAMES, weight.arrays, strict=True)) | ({} if bias is None else {"bias": bias})
    made = node(["x", *given], "y", weight.shape, windows, name="layer")
    outputs, inputs = weight.shape[0], weight.shape[1] * (windows.group if windows else 1)
    conv = len(weight.shape) == 4
    before: tuple[int | str, ...] = ("batch", inputs, "height", "width") if conv else ("batch", inputs)
    after: tuple[int | str, ...] = ("batch", outputs, "rows", "columns") if conv else ("batch", outputs)
    return build.model([made], [Port("x", before, "float32")], [Port("y", after, "float32")], given)
