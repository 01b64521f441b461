"""Windows: what a convolution or pool sees at every place, and the operators that only move values.

Source: the ONNX operator specification (Conv, MaxPool, AveragePool, Pad, Slice, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...errors import ModelError

Array = npt.NDArray[Any]

UNQUANTIZED = "an operand is not quantized. Put QuantizeLinear, DequantizeLinear before it."


@dataclass(frozen=True)
class Frame:
    """kernel, strides, dilations: one number per spatial axis; pads: the begins, then the ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, attributes: Mapping[str, Any], kernel: Sequence[int] | None = None) -> Self:
        """From the attributes of a node; the kernel of a convolution is that of its weight."""
        kernel = tuple(attributes["kernel_shape"]) if kernel is None else tuple(kernel)
        for option, expected in (("auto_pad", ("NOTSET", "VALID")), ("ceil_mode", (0,))):
            if attributes.get(option, expected[0]) not in expected:
                raise ModelError(
                    f"{option} is {attributes[option]!r}, expected {' or '.join(map(str, expected))}. "
                    "Export with explicit pads and floor mode."
                )
        ones = (1,) * len(kernel)
        return cls(
            kernel,
            tuple(attributes.get("strides", ones)),
            tuple(attributes.get("dilations", ones)),
            tuple(attributes.get("pads", (0,) * 2 * len(kernel))),
        )

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    def windows(self, x: Array, fill: int) -> Array:
        """[N, C, out..., kernel...] of x [N, C, in...], whose border is filled with `fill`."""
        ends = zip(self.pads[: self.axes], self.pads[self.axes :], strict=True)
        padded = np.pad(x, ((0, 0), (0, 0), *ends), constant_values=fill)
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        spatial = tuple(range(2, 2 + self.axes))
        taken: Array = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=spatial)
        every = (slice(None), slice(None))
        places = tuple(slice(None, None, step) for step in self.strides)
        return taken[(*every, *places, *(slice(None, None, step) for step in self.dilations))]


def reshape(attributes: Mapping[str, Any], x: Array, shape: Array) -> Array:
    if attributes.get("allowzero", 0):
        return x.reshape([int(size) for size in shape])
    return x.reshape([int(size) or x.shape[at] for at, size in enumerate(shape)])


def flatten(attributes: Mapping[str, Any], x: Array) -> Array:
    return x.reshape(prod(x.shape[: attributes.get("axis", 1)]), -1)


def transpose(attributes: Mapping[str, Any], x: Array) -> Array:
    return x.transpose(attributes.get("perm"))


def squeeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    given = attributes.get("axes") if axes is None else axes
    return x.squeeze(None if given is None else tuple(int(axis) for axis in given))


def unsqueeze(attributes: Mapping[str, Any], x: Array, axes: Array | None = None) -> Array:
    given = attributes["axes"] if axes is None else axes
    return np.expand_dims(x, tuple(int(axis) for axis in given))


def take_slice(
    attributes: Mapping[str, Any],
    x: Array,
    starts: Array,
    ends: Array,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    chosen = [slice(None)] * x.ndim
    steps = np.ones_like(starts) if steps is None else steps
    for start, end, axis, step in zip(
        starts, ends, range(len(starts)) if axes is None else axes, steps, strict=True
    ):
        stop = None if end < -x.shape[axis] and step < 0 else int(end)
        chosen[int(axis)] = slice(int(start), stop, int(step))
    return x[tuple(chosen)]


def identity(attributes: Mapping[str, Any], x: Array) -> Array:
    return x


def clip_codes(
    attributes: Mapping[str, Any], x: Array, low: Array | None = None, high: Array | None = None
) -> Array:
    """Between QuantizeLinear and DequantizeLinear: fewer values than the type of the integers has."""
    return np.clip(_integers(x), low, high)


def max_pool(attributes: Mapping[str, Any], x: Array) -> Array:
    """Integers keep the order of the values they stand for."""
    frame = Frame.of(attributes)
    least = int(np.iinfo(_integers(x).dtype).min)
    largest: Array = frame.windows(x, fill=least).max(axis=tuple(range(-frame.axes, 0)))
    return largest


def pad(
    attributes: Mapping[str, Any],
    x: Array,
    pads: Array,
    value: Array | int | None = None,
    axes: Array | None = None,
) -> Array:
    """A border of one integer."""
    if attributes.get("mode", "constant") != "constant":
        raise ModelError(f"mode is {attributes['mode']!r}, expected 'constant'.")
    border = np.zeros((x.ndim, 2), np.int64)
    border[range(x.ndim) if axes is None else axes] = np.asarray(pads).reshape(2, -1).T
    return np.pad(_integers(x), border, constant_values=0 if value is None else int(value))


def multiply(attributes: Mapping[str, Any], left: Array, right: Array) -> Array:
    """The scale of a bias from those of input and weight: constants only."""
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        raise ModelError("a product of integers outside of a layer.")
    return np.asarray(left * right)


def _integers(x: Array) -> Array:
    if x.dtype.kind not in "iu":
        raise ModelError(UNQUANTIZED)
    return x


MOVE: dict[str, Callable[..., Array]] = {
    "Flatten": flatten,
    "Identity": identity,
    "Reshape": reshape,
    "Slice": take_slice,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
PLAIN: dict[str, Callable[..., Array]] = {
    **MOVE,
    "Clip": clip_codes,
    "MaxPool": max_pool,
    "Mul": multiply,
    "Pad": pad,
}  # what may stand between QuantizeLinear and DequantizeLinear, or work on constants
