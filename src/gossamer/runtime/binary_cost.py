"""binary_cost: what layers of signs are expected to take, here and dense.

Both grow with the pixels and, by curves measured here, with the weights: those of our operators with what is stored, where
channels fill words of 64 and outputs blocks of 16. Convolutions are measured with 1 x 1 and 3 x 3 taps on 14 x 14 pixels,
products on rows; floats in and floats out, which is the slowest use of ours. Of groups no curve tells: the words of a group
may hold a single channel, and dense convolutions of groups have kernels of their own, so each shape is tried.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from . import binary, breakeven, build, conv_trial
from .conv_trial import PICTURE
from .lowering import Network
from .ports import Port
from .windows import Windows

WIDTHS = (16, 32, 64, 128, 256)  # channels
SIDES = (256, 1024, 2048)


def product(
    geometry: binary.Geometry, outputs: int, threads: int, samples: tuple[int, ...], traffic: int
) -> dict[int, tuple[float, float]]:
    """Milliseconds by number of samples, of ours and dense."""
    ours = breakeven.curve("binary", threads, _products, traffic=traffic)
    dense = breakeven.dense(threads, traffic=traffic)
    size, total = stored(geometry, outputs), geometry.products * outputs
    return {n: (ours.ms(size, n), dense.ms(total, n)) for n in samples}


def conv(
    geometry: binary.Geometry, outputs: int, threads: int, batch: int | None, pixels: tuple[int | None, ...]
) -> dict[int, tuple[float, float]]:
    """The same of a convolution with so many output pixels (height, width); of PICTURE where they are not known."""
    side = 3 if max(geometry.kernel) > 1 else 1
    ours = breakeven.curve(f"binary-{side}x{side}", threads, _binary[side])
    dense = breakeven.curve(f"conv-{side}x{side}", threads, _dense[side])
    height, width = (size or PICTURE for size in (pixels if len(pixels) == 2 else (None, None)))
    share = (batch or 1) * height * width / PICTURE**2
    times = ours.ms(stored(geometry, outputs), 1), dense.ms(geometry.products * outputs, 1)
    return {batch or 1: (times[0] * share, times[1] * share)}


def grouped(
    geometry: binary.Geometry, outputs: int, network: Network, source: str
) -> dict[int, tuple[float, float]]:
    """The same of a convolution of several groups of the image `source`."""
    shape = (outputs, geometry.inner, *geometry.kernel)
    windows = Windows(geometry.stride, geometry.dilation, geometry.pads, geometry.group)
    return conv_trial.times("binary", _model, network, source, shape, windows)


def stored(geometry: binary.Geometry, outputs: int) -> int:
    """Bits of the filters in memory."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    return -(-outputs // 16) * 16 * taps * 8 * binary.channel_bytes(geometry.channels)


def _products(threads: int, traffic: int) -> breakeven.Rows:
    rng = np.random.default_rng(0)
    rows = []
    for side in SIDES:
        x, weight = (
            rng.standard_normal((max(breakeven.SAMPLES), side), np.float32),
            rng.standard_normal((side, side)),
        )
        model = binary.model(weight, *np.ones((2, side), np.float32))
        rows.append((side * side, breakeven.times(model, x, threads, traffic=traffic)))
    return tuple(rows)


def _convolutions(side: int, signs: bool, threads: int) -> breakeven.Rows:
    rng = np.random.default_rng(0)
    rows = []
    for width in WIDTHS:
        x = rng.standard_normal((1, width, PICTURE, PICTURE), np.float32)
        weight = rng.standard_normal((width, width, side, side), np.float32)
        around = side // 2
        pads = (around, around, around, around)
        if signs:
            model = binary.model(weight, *np.ones((2, width), np.float32), pads=pads)
        else:
            x_port, y_port = (Port(name, ("n", width, f"h{name}", f"w{name}"), "float32") for name in "xy")
            node = build.node("Conv", ["x", "w"], ["y"], lists={"pads": pads})
            model = build.model([node], [x_port], [y_port], {"w": weight})
        size = stored(binary.Geometry(width, (side, side)), width) if signs else weight.size
        rows.append((size, breakeven.times(model, x, threads, (1,))))
    return tuple(rows)


def _model(conv: conv_trial.Conv) -> bytes:
    weight, given = np.random.default_rng(0).standard_normal(conv.shape), conv.windows
    strides, dilations, pads, group = given.strides, given.dilations, given.pads, given.group
    ones = np.ones((2, conv.shape[0]), np.float32)
    return binary.model(weight, *ones, stride=strides, dilation=dilations, pads=pads, group=group)


_binary = {side: partial(_convolutions, side, True) for side in (1, 3)}
_dense = {side: partial(_convolutions, side, False) for side in (1, 3)}
