"""conv_trial: what one convolution costs, by an operator of ours and dense: each shape is tried once and kept.

One image, floats in and floats out unless the models take other types. The time grows with the pixels: an image of more than
MOST pixels on a side is tried at that size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import breakeven, build
from .lowering import Network
from .ports import Port
from .windows import Windows

PICTURE = 14  # pixels on a side, where the graph does not tell
MOST = 256


@dataclass(frozen=True)
class Conv:
    """Filters of the shape [O, C / group, kh, kw] on images [C, height, width]."""

    shape: tuple[int, ...]
    windows: Windows
    height: int
    width: int

    @property
    def name(self) -> str:
        """Of its curve, after the kernel's."""
        numbers = (self.shape, *self.windows.lists().values(), (self.height, self.width))
        return "-".join("x".join(map(str, one)) for one in numbers)

    @property
    def macs(self) -> int:
        """Its size: multiply-adds, if it kept the size of the image."""
        return math.prod(self.shape) * self.height * self.width

    def drawn(self, dtype: str = "float32") -> np.ndarray:
        """An image [1, C, height, width], float32 or uint8."""
        shape = (1, self.shape[1] * self.windows.group, self.height, self.width)
        rng = np.random.default_rng(0)
        return (
            rng.integers(0, 256, shape, np.uint8)
            if dtype == "uint8"
            else rng.standard_normal(shape, np.float32)
        )


Model = Callable[[Conv], bytes]


@dataclass(frozen=True)
class Trial:
    """Called, it measures a convolution in the model that `model` makes of it, from "x" to "y"."""

    conv: Conv
    model: Model
    dtype: str

    def __call__(self, threads: int) -> breakeven.Rows:
        times = breakeven.times(self.model(self.conv), self.conv.drawn(self.dtype), threads, (1,))
        return ((self.conv.macs, times),)


def times(
    kernel: str,
    model: Model,
    network: Network,
    source: str,
    shape: tuple[int, ...],
    windows: Windows,
    *,
    rival: tuple[str, Model] | None = None,
    dtype: str = "float32",
) -> dict[int, tuple[float, float]]:
    """Milliseconds of `kernel`, whose model `model` makes, and of its rival, by number of samples; the image is `source`.

    rival: its name and what makes its model; dense in float32 if not given
    """
    sizes = (*network.shapes.get(source, ())[2:], None, None)[:2]
    height, width = (size or PICTURE for size in sizes)
    reach = windows.reach(shape[2:])
    sides = [max(min(size, MOST), least) for size, least in zip((height, width), reach, strict=True)]
    conv = Conv(shape, windows, *sides)
    count = network.batch or 1
    share = count * height * width / math.prod(sides)
    ours, other = (
        breakeven.curve(f"{name}-{conv.name}", network.threads, Trial(conv, made, dtype)).ms(conv.macs, 1)
        * share
        for name, made in ((kernel, model), rival or ("conv", dense))
    )
    return {count: (ours, other)}


def dense(conv: Conv) -> bytes:
    """A model of one Conv in float32."""
    lists = {k: v for k, v in conv.windows.lists().items() if k != "group"} | {"kernel_shape": conv.shape[2:]}
    weight = np.random.default_rng(0).standard_normal(conv.shape, np.float32)
    node = build.node("Conv", ["x", "w"], ["y"], integers={"group": conv.windows.group}, lists=lists)
    after = Port("y", (1, conv.shape[0], "rows", "columns"), "float32")
    return build.model([node], [Port("x", conv.drawn().shape, "float32")], [after], {"w": weight})
