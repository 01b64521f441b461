"""Dense: the weight as it is; the leaf of every format tree.

    w_hat = round_to(w, dtype)        values: float [*shape], trained

Stored: numel values of 32 bits, or 16 for float16 and bfloat16. Those two round to nearest even; in training the
gradient passes the rounding unchanged (straight-through estimator), so the file holds exactly what was trained.
Raises: FormatError when a value is too large for float16 (above 65504).
Source: IEEE 754-2019 binary16; bfloat16 is the upper half of binary32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..artifact.stored import Floats, Stored
from ..errors import FormatError, OptionError, nearest
from .base import Parts, WeightFormat, check_finite

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Dense(WeightFormat):
    """Floating-point values, kept in memory as float32 and written as `dtype`."""

    layout: ClassVar[str] = "dense"
    own_parts: ClassVar[tuple[str, ...]] = ("dense",)

    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise OptionError(f"Dense: unknown dtype {self.dtype!r}. {nearest(str(self.dtype), DTYPES)}")

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, "Dense")
        if self.dtype == "float16" and dense.numel() and float(dense.abs().max()) > 65504:
            raise FormatError(
                f"Dense: float16 ends at 65504, but a value is {float(dense.abs().max()):.6g}. Use bfloat16."
            )
        return (dense.detach().float().clone(),)

    def decode(self, *parts: Tensor) -> Tensor:
        (dense,) = parts
        if self.dtype == "float32":
            return dense
        return dense + (dense.to(DTYPES[self.dtype]).float() - dense).detach()

    def store(self, *parts: Tensor) -> Stored:
        values = parts[0].detach().to(DTYPES[self.dtype]).float().cpu().numpy()
        return Stored(self.layout, tuple(values.shape), {"values": Floats(values.reshape(-1), self.dtype)})

    def refine(self, inner: WeightFormat) -> WeightFormat:  # type: ignore[override]  # a leaf gives way to another type
        return inner

    def refine_parts(self, inner: WeightFormat, *parts: Tensor) -> Parts:
        return inner.encode(self.decode(*parts))
