"""Kept: a quantizer whose state dict carries all it is, and whose grid can be read while a network is traced.

The state ("observe", "quantize", "off") and the sign of the integers travel as one small tensor beside parameters and
buffers, so that `load_state_dict` gives back a quantizer that goes on quantizing. What was observed and not yet
settled is not kept.

While torch.export traces, tensors have no values; `grid` then answers with what it last knew. It looks again
whenever it is called otherwise, after `settle`, after loading, and at every `eval()`, which comes before a trace.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from ..errors import ExportError, OptionError
from .base import STATES, Quantizer
from .grid import Grid


class Kept(Quantizer):
    """Base of the quantizers that can be settled; subclasses say what the grid is by `present_grid`."""

    def __init__(self, *, bits: int = 8, signed: bool = False) -> None:
        super().__init__(bits=bits, signed=signed)
        self._known: Grid | None = None

    @property
    def largest(self) -> int:
        """2^bits - 1, the largest unsigned integer."""
        largest: int = 2**self.bits - 1
        return largest

    def present_grid(self) -> Grid:
        """The grid that parameters and buffers describe now."""
        raise NotImplementedError

    def grid(self) -> Grid:
        if torch.compiler.is_exporting():
            if self._known is None or self.training:
                raise ExportError(
                    f"{type(self).__name__}: a quantizer in training has no grid that a trace could keep. "
                    "Call settle(), and model.eval() before exporting."
                )
            return self._known
        self._known = self.present_grid()
        return self._known

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not mode and self.state == "quantize":
            self.grid()
        return self

    def get_extra_state(self) -> Tensor:
        """uint8 [2]: the index of the state, and whether integers are signed."""
        return torch.tensor([STATES.index(self.state), int(self.signed)], dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        index, signed = (int(value) for value in state)
        self.state, self.signed = STATES[index], bool(signed)
        if self.state == "quantize":
            self.grid()

    def begin(self) -> None:
        """Quantize from now on, with the grid as it is."""
        self.state = "quantize"
        self.grid()

    def refuse_negative(self, low: float) -> None:
        """OptionError when unsigned integers were to stand for values below zero."""
        if low < 0:
            raise OptionError(
                f"{type(self).__name__} rounds values from zero up, but observed {low:.6g}. Put it after a ReLU, "
                "or use a signed quantizer: LearnedStep(signed=True) or Affine."
            )
