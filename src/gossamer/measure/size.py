"""Sizes: the float32 weights of a model, the same weights under `zstd -19`, and a file on disk.

    parameters = sum of numel over unique parameters        (tied weights count once)
    bytes      = 4 * (parameters + floating-point buffers)  (running statistics count; counters do not)

The ratio a report prints is `bytes / stat(model.goss)`: everything that must be stored, over everything that
is. Raises: MeasureError for a model without weights and for a file that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MeasureError

ZSTD_LEVEL = 19


@dataclass(frozen=True)
class Weights:
    """Counts and bytes of a model's weights; `zstd_bytes` is None when it was not asked for."""

    parameters: int
    buffers: int
    bytes: int
    zstd_bytes: int | None = None


def weights(model: Any, *, zstd: bool = True) -> Weights:
    """Size of a torch module's parameters and floating-point buffers as float32, raw and compressed."""
    import zstandard

    parameters = _unique(model.named_parameters())
    known = {id(tensor) for tensor in parameters}
    buffers = [b for b in _unique(model.named_buffers()) if b.is_floating_point() and id(b) not in known]
    values = sum(tensor.numel() for tensor in (*parameters, *buffers))
    if not values:
        raise MeasureError(
            f"{type(model).__name__}: the model has no weights, expected at least one parameter."
        )
    compressed = None
    if zstd:
        coder = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj(size=4 * values)
        compressed = 0
        for tensor in (*parameters, *buffers):
            data = np.ascontiguousarray(tensor.detach().cpu().float().numpy())
            compressed += len(coder.compress(data.data))
        compressed += len(coder.flush())
    return Weights(
        parameters=sum(tensor.numel() for tensor in parameters),
        buffers=sum(tensor.numel() for tensor in buffers),
        bytes=4 * values,
        zstd_bytes=compressed,
    )


def file_bytes(path: str | Path) -> int:
    """What `stat` says of a file."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError as error:
        raise MeasureError(f"{path}: there is no such file to measure.") from error


def _unique(named: Iterator[tuple[str, Any]]) -> list[Any]:
    """Tensors in order, one for each memory they view (tied weights share theirs)."""
    found: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Any] = {}
    for _, tensor in named:
        found.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()), tensor)
    return list(found.values())
