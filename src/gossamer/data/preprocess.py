"""Preprocess: from raw samples, or a file, to the float32 array a model takes.

    y = (raw * scale - mean[c]) / std[c]            computed as raw * a[c] + b[c] in float32
    raw, color "L":   uint8 or float [N, H, W]      -> [N, 1, H, W]
    raw, color "RGB": uint8 or float [N, H, W, 3]   -> [N, 3, H, W]
    raw, color None:  any [N, ...]                  -> same shape (channels on axis 1 if mean has several)

`crop` = (H, W) cuts the middle out of every picture first (an odd rest leaves one pixel more at the bottom and
right). `bgr` hands the channels over as blue, green, red, the order of networks made with Caffe; mean and std are
then in that order, raw pictures stay RGB.
`image` reads one picture with Pillow, converts it to `color`, resizes it (bilinear) to `size` = (H, W) and
adds the batch axis; `sound` does the same for a recording (see `speech`). The dictionary of `to_dict` goes
into the metadata of every packed file, so it is short: `div` 255 means scale 1/255, a square size is one
number, defaults are left out.
Raises: DataError for an unreadable file or a raw batch whose shape does not fit; OptionError for a broken
dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gossamer.data.speech import LogMel
from gossamer.errors import DataError, OptionError, nearest

Color = Literal["L", "RGB"]
_KEYS = ("color", "bgr", "size", "crop", "div", "scale", "mean", "std", "sound")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Scale, mean and std (per channel or one for all) plus what is needed to read a file."""

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    color: Color | None = None
    log_mel: LogMel | None = None
    crop: tuple[int, int] | None = None
    bgr: bool = False

    def __post_init__(self) -> None:
        if self.color not in (None, "L", "RGB"):
            raise OptionError(f"preprocess: color is {self.color!r}, expected 'L', 'RGB' or None.")
        if self.bgr and self.color != "RGB":
            raise OptionError(f"preprocess: bgr needs color 'RGB', but color is {self.color!r}.")
        if self.crop and (self.color is None or min(self.crop) < 1):
            raise OptionError(
                f"preprocess: crop {self.crop} needs positive sizes and pictures (color 'L' or 'RGB'; it is "
                f"{self.color!r})."
            )
        if not all(np.isfinite([self.scale, *self.mean, *self.std])) or any(s <= 0 for s in self.std):
            raise OptionError(
                f"preprocess: scale {self.scale}, mean {self.mean}, std {self.std} must be finite and std "
                f"positive."
            )
        channels = {"L": 1, "RGB": 3}.get(self.color or "")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if channels and len(values) not in (0, 1, channels):
                raise OptionError(
                    f"preprocess: {name} has {len(values)} values for {channels} channel(s) of color "
                    f"{self.color!r}. "
                    f"Give one value, or one for each channel."
                )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """A raw batch [N, ...] as contiguous float32, normalised, channels first."""
        if self.color == "L":
            if raw.ndim != 3:
                raise DataError(f"preprocess: a grey batch has shape {raw.shape}, expected [N, H, W].")
            raw = raw[:, None]
        elif self.color == "RGB":
            if raw.ndim != 4 or raw.shape[3] != 3:
                raise DataError(f"preprocess: a colour batch has shape {raw.shape}, expected [N, H, W, 3].")
            raw = raw.transpose(0, 3, 1, 2)
        if self.bgr:
            raw = raw[:, ::-1]
        if self.crop:
            raw = _middle(raw, self.crop)
        mean = np.asarray(self.mean or (0.0,), np.float64)
        std = np.asarray(self.std or (1.0,), np.float64)
        factor, offset = self.scale / std, -mean / std
        if (factor == 1).all() and (offset == 0).all():
            return np.ascontiguousarray(raw, np.float32)
        channels = max(factor.size, offset.size)
        if channels > 1 and (raw.ndim < 2 or raw.shape[1] != channels):
            raise DataError(
                f"preprocess: a batch of shape {raw.shape} has no axis 1 of {channels} channels, "
                f"but mean and std are given for {channels}."
            )
        shape = (1, -1) + (1,) * (raw.ndim - 2) if channels > 1 else (1,) * raw.ndim
        result = np.empty(raw.shape, np.float32)
        np.multiply(
            raw, factor.astype(np.float32).reshape(shape), out=result, casting="unsafe", dtype=np.float32
        )
        result += offset.astype(np.float32).reshape(shape)
        return result

    def file(self, path: str | Path) -> np.ndarray:
        """A file as a batch of one, ready for the model: a recording with `log_mel`, else a picture."""
        return self.sound(path) if self.log_mel else self.image(path)

    def image(self, path: str | Path) -> np.ndarray:
        """A picture as a batch of one [1, C, H, W], ready for the model."""
        return self(read_image(path, size=self.size, color=self.color or "RGB")[None])

    def sound(self, path: str | Path) -> np.ndarray:
        """A WAV recording as a batch of one [1, 1, mels, frames], ready for the model."""
        if self.log_mel is None:
            raise DataError(
                f"{path}: this model's preprocessing reads pictures, not recordings. Give an image file."
            )
        return self(self.log_mel.file(path)[None])

    def to_dict(self) -> dict[str, Any]:
        """The shortest JSON-ready description; `from_dict` gives back an equal object."""
        result: dict[str, Any] = {}
        if self.color:
            result["color"] = self.color
        if self.bgr:
            result["bgr"] = True
        for name, size in (("size", self.size), ("crop", self.crop)):
            if size:
                result[name] = size[0] if size[0] == size[1] else list(size)
        div = round(1 / self.scale) if self.scale else 0
        if self.scale != 1:
            result |= {"div": div} if div and 1 / div == self.scale else {"scale": self.scale}
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values:
                result[name] = values[0] if len(values) == 1 else list(values)
        if self.log_mel:
            result["sound"] = self.log_mel.to_dict()
        return result

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Preprocess:
        """The object that `to_dict` described."""
        for key in given:
            if key not in _KEYS:
                raise OptionError(f"preprocess: unknown key {key!r}. {nearest(key, _KEYS)}")
        try:
            return cls(
                scale=1 / given["div"] if "div" in given else float(given.get("scale", 1.0)),
                mean=_floats(given.get("mean", ())),
                std=_floats(given.get("std", ())),
                size=_size(given.get("size")),
                color=given.get("color"),
                log_mel=LogMel(**given["sound"]) if "sound" in given else None,
                crop=_size(given.get("crop")),
                bgr=bool(given.get("bgr", False)),
            )
        except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise OptionError(f"preprocess: {dict(given)} cannot be read ({error}).") from error


def read_image(path: str | Path, *, size: tuple[int, int] | None, color: Color) -> np.ndarray:
    """A picture as uint8 [H, W] or [H, W, 3]; raises DataError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert(color)
        if size and (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such image file.") from error
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}). Replace or remove the file."
        ) from error


def _middle(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of pictures [N, C, H, W]."""
    top, left = ((have - want) // 2 for have, want in zip(pictures.shape[2:], size, strict=True))
    if top < 0 or left < 0:
        raise DataError(
            f"preprocess: pictures of {pictures.shape[2]}x{pictures.shape[3]} are smaller than the crop of "
            f"{size[0]}x{size[1]}. Resize them first (size)."
        )
    return pictures[:, :, top : top + size[0], left : left + size[1]]


def _size(value: Any) -> tuple[int, int] | None:
    """(H, W) from one number or two."""
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _floats(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else (float(value),)
