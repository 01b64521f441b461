"""binary: weights of signs as fields of the operators that convolve signs with signs.

    v[o] = sum over taps and channels of sign(x) sign(w)        sign(0) = +1
    BinaryConv       y[o] = scale[o] v[o] + offset[o]           the scale of the weights and a batch norm, folded
    BinaryConvSign   y[o] = +1 where v[o] >= threshold[o], else -1, as bits
    BinarySign       bits of floats            BinaryFloats     floats of bits
    BinaryMaxPool    the largest of bits

Stored: one bit per weight, 1 for -1, channels of a group innermost. x is floats or bits; bits between operators are uint8
[N, H, W, 8 ceil(C / 64)] (native/binary_conv/layer.h). Outside the image lies 0, as in torch, or +1. The integers v are
exact; y rounds once.
Raises: OptionError for weights that are no filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import OptionError
from . import build
from .ports import Port

OPERATOR, TO_BITS = "BinaryConv", "BinaryConvSign"
SIGN, POOL, FLOATS = "BinarySign", "BinaryMaxPool", "BinaryFloats"


@dataclass(frozen=True)
class Geometry:
    """How filters [O, channels / group, *kernel] meet an image; `pads` are top, left, bottom and right.

    `product`: a matrix, whose inputs lie on the last axis. `flatten`: an image of bits is one row of `kernel` = (1, H W)
    taps, as after Flatten.
    """

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: int = 0
    group: int = 1
    product: bool = False
    flatten: bool = False

    @property
    def products(self) -> int:
        """K: the number of signs that one output sums."""
        return self.inner * self.kernel[0] * self.kernel[1]

    @property
    def inner(self) -> int:
        """Channels of one group."""
        return self.channels // self.group

    def lists(self) -> dict[str, tuple[int, ...]]:
        """The attributes of a node."""
        return {
            "channels": (self.channels,),
            "kernel_shape": self.kernel,
            "strides": self.stride,
            "dilations": self.dilation,
            "pads": self.pads,
            "group": (self.group,),
            "pad_value": (self.pad_value,),
            "product": (int(self.product),),
            "flatten": (int(self.flatten),),
        }


def packed(weight: np.ndarray) -> np.ndarray:
    """Bits uint8 [O, kh, kw, ceil(C / 8)] of the signs of filters [O, C, kh, kw], or of a matrix [O, C]."""
    if weight.ndim not in (2, 4) or not weight.size:
        raise OptionError(
            f"binary filters: received shape {weight.shape}, expected [outputs, channels] or "
            "[outputs, channels, height, width] without an empty axis."
        )
    filters = weight[:, :, None, None] if weight.ndim == 2 else weight
    return packed_signs(~(filters >= 0))


def packed_signs(negative: np.ndarray) -> np.ndarray:
    """The same from booleans [O, C, kh, kw], true for -1."""
    return np.packbits(np.moveaxis(negative, 1, -1), axis=-1, bitorder="little")


def channel_bytes(channels: int) -> int:
    """Bytes of the bits of one pixel, between operators: whole words of 64 bits."""
    return 8 * -(-channels // 64)


def node(op: str, inputs: Sequence[str], output: str, geometry: Geometry, *, name: str = "") -> bytes:
    """A BinaryConv that reads x, filters, scale and offset, or a BinaryConvSign that reads x, filters and thresholds."""
    return build.node(op, inputs, [output], name=name, domain=build.DOMAIN, lists=geometry.lists())


def model(
    weight: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    pad_value: int = 0,
    group: int = 1,
) -> bytes:
    """A model of one BinaryConv on floats; for tests, benchmarks and other engines."""
    given = {"filters": packed(weight), "scale": scale, "offset": offset}
    kernel = (weight.shape[2], weight.shape[3]) if weight.ndim == 4 else (1, 1)
    channels, product = weight.shape[1] * group, weight.ndim == 2
    geometry = Geometry(channels, kernel, stride, dilation, pads, pad_value, group, product)
    made = node(OPERATOR, ["x", *given], "y", geometry, name="conv")
    axes: tuple[str, ...] = ("height", "width") if weight.ndim == 4 else ()
    outputs: tuple[str, ...] = ("rows", "columns") if weight.ndim == 4 else ()
    return build.model(
        [made],
        [Port("x", ("batch", channels, *axes), "float32")],
        [Port("y", ("batch", weight.shape[0], *outputs), "float32")],
        given,
    )
