"""Augmentations: a raw batch in, a randomly changed raw batch out, all samples at once.

    none         as it is
    shift        up to 2 pixels in either direction, for digits
    affine       rotation up to 10 degrees, scale 0.9-1.1, shear up to 0.1, shift up to 2 pixels, for digits
    flip-crop    mirrored in half of the cases, then shifted by up to 4 pixels (pad 4 and crop), for CIFAR

They run before the preprocessing, so that what is moved in is black (0), as in the papers; feature maps (no
colour, [N, C, H, W]) repeat their border instead. Every random number comes from the generator given: same
seed, same batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from gossamer.data.preprocess import Color
from gossamer.errors import DataError, OptionError, nearest

Augment = Callable[[np.ndarray, np.random.Generator, Color | None], np.ndarray]


def none(raw: np.ndarray, rng: np.random.Generator, color: Color | None) -> np.ndarray:
    return raw


def crop(raw: np.ndarray, rng: np.random.Generator, color: Color | None, *, pad: int) -> np.ndarray:
    """Pad every side, then cut a window of the old size at a place of its own for each sample."""
    axes = _picture_axes(raw, color)
    height, width = (raw.shape[axis] for axis in axes)
    widths = [(pad, pad) if axis in axes else (0, 0) for axis in range(raw.ndim)]
    padded = np.pad(raw, widths) if color else np.pad(raw, widths, mode="edge")
    tops, lefts = rng.integers(0, 2 * pad + 1, (2, len(raw)))
    result = np.empty_like(raw)
    for top in range(2 * pad + 1):  # one copy for each place, not one for each sample or pixel
        for left in range(2 * pad + 1):
            rows = np.flatnonzero((tops == top) & (lefts == left))
            if len(rows):
                window = [slice(None)] * raw.ndim
                window[axes[0]], window[axes[1]] = slice(top, top + height), slice(left, left + width)
                result[rows] = padded[tuple(window)][rows]
    return result


def flip_crop(raw: np.ndarray, rng: np.random.Generator, color: Color | None) -> np.ndarray:
    """Mirror left and right with probability 1/2, then crop with 4 pixels of padding."""
    flip = rng.random(len(raw)) < 0.5
    raw = raw.copy()
    raw[flip] = np.flip(raw[flip], _picture_axes(raw, color)[1])
    return crop(raw, rng, color, pad=4)


def affine(
    raw: np.ndarray,
    rng: np.random.Generator,
    color: Color | None,
    *,
    degrees: float = 10.0,
    scale: float = 0.1,
    shear: float = 0.1,
    pixels: float = 2.0,
) -> np.ndarray:
    """A random affine map for each sample, bilinear; the result is float32 in the range of the input."""
    count, (rows, columns) = len(raw), _picture_axes(raw, color)
    angle = rng.uniform(-1, 1, count) * math.radians(degrees)
    zoom = 1 / rng.uniform(1 - scale, 1 + scale, count)
    slant = rng.uniform(-shear, shear, count)
    move = rng.uniform(-2, 2, (2, count)) * pixels / np.array([[raw.shape[columns]], [raw.shape[rows]]])
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    theta = np.stack([cos, slant * cos - sin, move[0], sin, slant * sin + cos, move[1]], 1).reshape(
        count, 2, 3
    )
    pictures = torch.from_numpy(np.ascontiguousarray(raw, np.float32))
    pictures = (
        pictures[:, None] if color == "L" else pictures.permute(0, 3, 1, 2) if color == "RGB" else pictures
    )
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(pictures.shape), align_corners=False)
    border = "zeros" if color else "border"
    moved = F.grid_sample(pictures, grid, mode="bilinear", padding_mode=border, align_corners=False)
    moved = moved[:, 0] if color == "L" else moved.permute(0, 2, 3, 1) if color == "RGB" else moved
    return moved.numpy()


AUGMENTS: dict[str, Augment] = {
    "none": none,
    "shift": partial(crop, pad=2),
    "affine": affine,
    "flip-crop": flip_crop,
}


def find_augment(name: str | None) -> Augment:
    """The augmentation of that name; None is "none"."""
    if name is not None and name not in AUGMENTS:
        raise OptionError(f"augment: unknown name {name!r}. {nearest(name, AUGMENTS)}")
    return AUGMENTS[name or "none"]


def _picture_axes(raw: np.ndarray, color: Color | None) -> tuple[int, int]:
    expected = 3 if color == "L" else 4
    if raw.ndim != expected:
        raise DataError(
            f"augment: samples have shape {raw.shape[1:]}, expected pictures. Use augment 'none' for this "
            f"data set."
        )
    return (1, 2) if color else (2, 3)
