"""ternary_int8: ternary weights that meet inputs of 8 bits, as fields of TernaryGemmInt8 and TernaryConvInt8.

    y[o] = scale[o] sum_i t[o, i] (x[i] - z) + bias[o]        t = -1, 0 or 1; the sum is an exact integer

    codes    uint8   as in `ternary`, for 0, -1 and 1
    scale    float32 [1] or [O]      that of x times that of the weights
    x        uint8 or int8 with the zero point z

Read from the layout `integers` where no code is beyond -1, 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..artifact.outline import Outline
from ..artifact.stored import Stored
from . import build, ternary
from .ports import Port
from .windows import Windows

GEMM, CONV = "TernaryGemmInt8", "TernaryConvInt8"
NAMES = ("codes", "scale", "bias")


def fits(node: Outline) -> bool:
    """True for what may be ternary integers, as far as the header tells; `of` looks at the codes."""
    return (
        node.layout == "integers"
        and len(node.shape) in (2, 4)
        and min(node.shape) >= 1
        and node.fields["codes"].width <= 2
        and "high" not in node.fields
    )


def of(stored: Stored, *, transposed: bool = False) -> ternary.TernaryWeight | None:
    """The fields of stored integers, or None where some are beyond -1, 0 and 1; `transposed`: stored as [I, O]."""
    meaning = np.arange(4) - int(stored.options.get("offset", 0))
    table = np.select([meaning == 0, meaning == -1, meaning == 1], [0, 1, 2], 3).astype(np.uint8)
    codes = table[stored.fields["codes"].values.reshape(stored.shape)]
    if codes.max() == 3:
        return None
    return ternary.packed(
        codes.T if transposed else codes, np.array([-1, 1], np.float32), np.ones(1, np.float32)
    )


def node(
    inputs: Sequence[str],
    output: str,
    shape: Sequence[int],
    zero_point: int,
    windows: Windows | None = None,
    *,
    name: str = "",
) -> bytes:
    """The node that reads x, NAMES; `shape` of the weight [O, I] or [O, C / groups, kh, kw], zero_point as uint8."""
    lists: dict[str, Sequence[int]] = {"zero_point": (zero_point,)}
    if len(shape) == 2:
        lists["inputs"] = (shape[1],)
    else:
        windows = windows or Windows()
        lists |= {"channels": (shape[1] * windows.group,), "kernel_shape": tuple(shape[2:])} | windows.lists()
    op = GEMM if len(shape) == 2 else CONV
    return build.node(op, inputs, [output], name=name, domain=build.DOMAIN, lists=lists)


def model(
    weight: ternary.TernaryWeight,
    scale: np.ndarray,
    bias: np.ndarray,
    zero_point: int,
    *,
    dtype: str = "uint8",
    windows: Windows | None = None,
) -> bytes:
    """A model of one node; for tests, benchmarks and other engines."""
    given = dict(zip(NAMES, (weight.codes, scale, bias), strict=True))
    made = node(["x", *given], "y", weight.shape, zero_point, windows, name="layer")
    outputs, inputs = weight.shape[0], weight.shape[1] * (windows.group if windows else 1)
    conv = len(weight.shape) == 4
    before: tuple[int | str, ...] = ("batch", inputs, "height", "width") if conv else ("batch", inputs)
    after: tuple[int | str, ...] = ("batch", outputs, "rows", "columns") if conv else ("batch", outputs)
    return build.model([made], [Port("x", before, dtype)], [Port("y", after, "float32")], given)
