"""Resize and Upsample: every coordinate transformation, one axis after the other.

    nearest   y[i] = x[round(c(i))]          linear   y[i] = sum_j w(c(i) - j) x[j] with a hat
    cubic     the same with Keys' kernel of parameter a;   antialias stretches the kernel when the picture shrinks

c(i) maps the place of an output to the input (half_pixel, asymmetric, align_corners, ...). Where torch's interpolate
computes the same, it is called; otherwise entries are picked, or weighed by a matrix. Sizes must be known numbers.
Source: the ONNX operator specification; Keys, "Cubic convolution interpolation", 1981.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ModelError
from ..values import Floats, Ints

_TORCH = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}


def Upsample(x: Tensor, scales: Floats, *, mode: str = "nearest") -> Tensor:
    """Resize as it was before opset 10."""
    return Resize(
        x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def Resize(
    x: Tensor,
    roi: Floats | None = None,
    scales: Floats | None = None,
    sizes: Ints | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    antialias: int = 0,
    axes: Ints | None = None,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """`scales` or `sizes`, for `axes` (none: all)."""
    if coordinate_transformation_mode == "tf_crop_and_resize":
        raise ModelError(
            "Resize: tf_crop_and_resize is not known. Crop with Slice and resize with half_pixel."
        )
    along = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    plan = _plan(x, along, scales or (), sizes, keep_aspect_ratio_policy)
    options: dict[str, Any] = {
        "mode": "linear" if mode in ("linear", "bilinear") else mode,
        "place": coordinate_transformation_mode,
        "nearest": nearest_mode,
        "a": cubic_coeff_a,
        "outside": exclude_outside,
        "antialias": antialias,
    }
    known = _interpolated(x, plan, **options)
    if known is not None:
        return known
    for axis, (size, scale) in plan.items():
        x = _along(x, axis, size, scale, **options)
    return x


def _plan(
    x: Tensor, along: list[int], scales: Floats, sizes: Ints | None, policy: str
) -> dict[int, tuple[int, float]]:
    """{axis: (new size, scale)} of the axes that change."""
    if sizes:
        if policy != "stretch":
            ratios = [size / x.shape[axis] for axis, size in zip(along, sizes, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            sizes = tuple(math.floor(ratio * x.shape[axis] + 0.5) for axis in along)
            given = {axis: (size, ratio) for axis, size in zip(along, sizes, strict=True)}
        else:
            pairs = zip(along, sizes, strict=True)
            given = {axis: (size, size / x.shape[axis]) for axis, size in pairs if size is not x.shape[axis]}
    else:
        given = {
            axis: (math.floor(x.shape[axis] * scale), scale)
            for axis, scale in zip(along, scales, strict=True)
            if scale != 1
        }
    return {axis: (size, scale) for axis, (size, scale) in given.items() if axis > 1 or size != x.shape[axis]}


def _interpolated(x: Tensor, plan: dict[int, tuple[int, float]], **options: Any) -> Tensor | None:
    """What torch's own interpolate gives, where it is the same; None where it is not."""
    if not 3 <= x.ndim <= 5 or any(axis < 2 for axis in plan):
        return None
    if any(size != x.shape[axis] * scale for axis, (size, scale) in plan.items()):
        return None
    sizes = [plan[axis][0] if axis in plan else x.shape[axis] for axis in range(2, x.ndim)]
    place, mode = options["place"], options["mode"]
    if mode == "nearest":
        for name, shift in (("nearest", 0.0), ("nearest-exact", 0.5)):
            if all(
                np.array_equal(
                    _picked(x.shape[axis], size, scale, **options),
                    ((np.arange(size) + shift) * x.shape[axis] / size).astype(int),
                )
                for axis, (size, scale) in plan.items()
            ):
                return F.interpolate(x, sizes, mode=name)
        return None
    name = _TORCH[mode].get(x.ndim, "")
    half = place == "half_pixel" or (place == "pytorch_half_pixel" and min(sizes) > 1)
    if not name or options["antialias"] or not (half or place == "align_corners"):
        return None
    if mode == "cubic" and (options["a"] != -0.75 or options["outside"]):
        return None
    return F.interpolate(x, sizes, mode=name, align_corners=place == "align_corners")


def _along(x: Tensor, axis: int, size: int, scale: float, **options: Any) -> Tensor:
    """One axis resized."""
    if options["mode"] == "nearest":
        index = torch.from_numpy(_picked(x.shape[axis], size, scale, **options)).to(x.device)
        return torch.index_select(x, axis, index)
    matrix = torch.from_numpy(_weights(x.shape[axis], size, scale, **options)).to(x.device, x.dtype)
    return torch.matmul(x.movedim(axis, -1), matrix.T).movedim(-1, axis)


def _places(old: int, new: int, scale: float, place: str) -> np.ndarray:
    """c(i) for every output, in single precision: whether it is just above or below a half decides what is picked."""
    i, s, half = np.arange(new, dtype=np.float32), np.float32(scale), np.float32(0.5)
    if place == "half_pixel" or (place == "pytorch_half_pixel" and new > 1):
        return (i + half) / s - half
    if place == "asymmetric":
        return i / s
    if place == "align_corners" and new > 1:
        return i * np.float32(old - 1) / np.float32(new - 1)
    if place in ("pytorch_half_pixel", "align_corners"):
        return np.zeros(new, np.float32)
    if place == "half_pixel_symmetric":
        adjustment = np.float32(new) / (s * np.float32(old))
        offset = np.float32(old) / 2 * (1 - adjustment)
        return offset + (i + half) / s - half
    raise ModelError(f"Resize: unknown coordinate_transformation_mode {place!r}.")


def _picked(old: int, new: int, scale: float, *, place: str, nearest: str, **rest: Any) -> np.ndarray:
    """The index of each output in the input."""
    c = _places(old, new, scale, place)
    rounded = {
        "round_prefer_floor": np.ceil(c - np.float32(0.5)),
        "round_prefer_ceil": np.floor(c + np.float32(0.5)),
        "floor": np.floor(c),
        "ceil": np.ceil(c),
    }[nearest]
    index: np.ndarray = rounded.clip(0, old - 1).astype(np.int64)
    return index


def _weights(
    old: int,
    new: int,
    scale: float,
    *,
    mode: str,
    place: str,
    a: float,
    outside: int,
    antialias: int,
    **rest: Any,
) -> np.ndarray:
    """M [new, old] with y = M x; what lies outside takes the value of the border, or none with `outside`."""
    c = _places(old, new, scale, place)
    stretch = max(1 / scale, 1.0) if antialias else 1.0
    reach = (1 if mode == "linear" else 2) * stretch
    matrix = np.zeros((new, old))
    for row, centre in enumerate(c):
        taps = np.arange(math.floor(centre - reach) + 1, math.ceil(centre + reach))
        distance = np.abs(centre - taps) / stretch
        weight = np.maximum(1 - distance, 0) if mode == "linear" else _keys(distance, a)
        if outside:
            weight = np.where((taps < 0) | (taps >= old), 0, weight)
        np.add.at(matrix[row], taps.clip(0, old - 1), weight)
        matrix[row] /= weight.sum()
    return matrix


def _keys(d: np.ndarray, a: float) -> np.ndarray:
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0))
