"""Round: the weights that still are 32-bit floats (biases, norms) are kept in 16 bits.

The model itself is rounded, so what is measured is what the file holds; later training passes the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .. import formats
from ..errors import StepError
from ..formats import Dense
from .base import Context, Step, choose


@dataclass(frozen=True, kw_only=True)
class Round(Step):
    """Give every parameter without a format the format Dense(dtype); dtype float16 or bfloat16."""

    attaches: ClassVar[bool] = True

    dtype: str = "float16"
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        Dense(dtype=self.dtype)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        formatted = formats.attached(model)
        chosen = choose(model, self.layers if self.layers is not None else ["*"], (), context)
        plain = [name for name in chosen if name not in formatted]
        if not plain:
            raise StepError("Round found no parameter without a format. Drop the step.")
        for name in plain:
            formats.refine(model, name, Dense(dtype=self.dtype))
        return model
