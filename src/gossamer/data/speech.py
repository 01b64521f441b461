"""LogMel: a recording as a picture of fixed size.

    frames   f[t]    = hann(window) * samples[t * hop : t * hop + window]          t = 0 .. frames - 1
    power    p[t, k] = |rfft(f[t])[k]|^2 / window
    features x[m, t] = log(sum_k mel[m, k] p[t, k] + 1e-6)                          float32 [1, mels, frames]

`mel` holds triangles between mels + 2 points equally spaced on the mel scale, 2595 log10(1 + f / 700), from 0
to half the sampling rate. A recording is mixed to one channel, resampled linearly to `rate` when it has
another one, and cut or zero-padded around its middle to window + (frames - 1) * hop samples (1.04 s with the
defaults).

Raises: DataError that names the file when it is missing or not a PCM WAV.
"""

from __future__ import annotations

import dataclasses
import wave
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gossamer.errors import DataError

FLOOR = 1e-6  # keeps the logarithm of silence finite


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """The constants of the features; a packed file's metadata names those that differ from the defaults."""

    rate: int = 8000
    mels: int = 32
    frames: int = 64
    window: int = 256
    hop: int = 128

    @property
    def length(self) -> int:
        """Samples that one picture covers."""
        return self.window + (self.frames - 1) * self.hop

    @cached_property
    def filters(self) -> np.ndarray:
        """Triangles [mels, window // 2 + 1]."""
        top = 2595 * np.log10(1 + self.rate / 2 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, self.mels + 2) / 2595) - 1)
        frequency = np.fft.rfftfreq(self.window, 1 / self.rate)
        rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
        triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling))
        return triangles

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Samples in -1..1 [L] at `rate` as features, float32 [1, mels, frames]."""
        picture: np.ndarray = self.features(self.fit(samples, rate)[None])[0]
        return picture

    def fit(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Samples [L] at `rate`, resampled and cut or padded to [length]."""
        if rate != self.rate:
            moments = np.arange(0, len(samples) * self.rate // rate) * (rate / self.rate)
            samples = np.interp(moments, np.arange(len(samples)), samples)
        cut = max(0, (len(samples) - self.length) // 2)
        samples = samples[cut : cut + self.length]
        before = (self.length - len(samples)) // 2
        padded: np.ndarray = np.pad(samples, (before, self.length - len(samples) - before))
        return padded

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Recordings [N, length] as float32 [N, 1, mels, frames]."""
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window, axis=1)[:, :: self.hop]
        power = np.abs(np.fft.rfft(frames * np.hanning(self.window), axis=2)) ** 2 / self.window
        logs: np.ndarray = np.log(power @ self.filters.T + FLOOR).astype(np.float32)
        return logs.transpose(0, 2, 1)[:, None].copy()

    def file(self, path: str | Path) -> np.ndarray:
        """The features of a WAV file."""
        try:
            with open(path, "rb") as stream:
                samples, rate = read_wav(stream, str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        return self(samples, rate)

    def to_dict(self) -> dict[str, int]:
        """The fields that differ from the defaults."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        }


def read_wav(stream: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """(samples in -1..1 as float64 [L], rate) of a PCM WAV of 8, 16 or 32 bits; channels are averaged."""
    try:
        with wave.open(stream) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(
            f"{name}: cannot be read as a recording ({error}), expected a PCM WAV file."
        ) from error
    if width not in (1, 2, 4) or rate <= 0 or not content:
        raise DataError(
            f"{name}: {8 * width} bits at {rate} Hz, {len(content)} bytes; expected 8, 16 or 32 bits."
        )
    content = content[: len(content) // (width * channels) * (width * channels)]
    values = np.frombuffer(content, {1: "u1", 2: "<i2", 4: "<i4"}[width]).astype(np.float64)
    values = (values - 128) / 128 if width == 1 else values / float(1 << (8 * width - 1))
    return values.reshape(-1, channels).mean(1), rate
