"""binary: weights of signs as fields of the operator BinaryConv, which convolves signs with signs.

    v[o] = sum over taps and channels of sign(x) sign(w)        sign(0) = +1
    y[o] = scale[o] v[o] + offset[o]                            the scale of the weights and a batch norm, folded

Stored: one bit per weight, 1 for -1, channels innermost (native/binary_conv/format.h). Outside the image lies 0, as in
torch, or +1. The integers v are exact; y rounds once.
Raises: OptionError for weights that are no filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import OptionError
from . import build
from .ports import Port

OPERATOR = "BinaryConv"


def packed(weight: np.ndarray) -> np.ndarray:
    """Bits uint8 [O, kh, kw, ceil(C / 8)] of the signs of filters [O, C, kh, kw], or of a matrix [O, C]."""
    if weight.ndim not in (2, 4) or not weight.size:
        raise OptionError(
            f"binary filters: received shape {weight.shape}, expected [outputs, channels] or "
            "[outputs, channels, height, width] without an empty axis."
        )
    filters = weight[:, :, None, None] if weight.ndim == 2 else weight
    negative = np.moveaxis(~(filters >= 0), 1, -1)
    return np.packbits(negative, axis=-1, bitorder="little")


def node(
    inputs: Sequence[str],
    output: str,
    weight_shape: Sequence[int],
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    pad_value: int = 0,
    name: str = "",
) -> bytes:
    """The node that reads x, filters, scale and offset; `pads` are top, left, bottom and right."""
    kernel = tuple(weight_shape[2:]) or (1, 1)
    lists = {
        "channels": (weight_shape[1],),
        "kernel_shape": kernel,
        "strides": stride,
        "dilations": dilation,
        "pads": pads,
        "pad_value": (pad_value,),
    }
    return build.node(OPERATOR, inputs, [output], name=name, domain=build.DOMAIN, lists=lists)


def model(
    weight: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    pad_value: int = 0,
) -> bytes:
    """A model of one node; for tests, benchmarks and other engines."""
    given = {"filters": packed(weight), "scale": scale, "offset": offset}
    made = node(
        ["x", *given],
        "y",
        weight.shape,
        stride=stride,
        dilation=dilation,
        pads=pads,
        pad_value=pad_value,
        name="conv",
    )
    axes: tuple[str, ...] = ("height", "width") if weight.ndim == 4 else ()
    outputs: tuple[str, ...] = ("rows", "columns") if weight.ndim == 4 else ()
    return build.model(
        [made],
        [Port("x", ("batch", weight.shape[1], *axes), "float32")],
        [Port("y", ("batch", weight.shape[0], *outputs), "float32")],
        given,
    )
