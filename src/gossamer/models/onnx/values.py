"""Known: an array whose numbers are known while the network is followed: sizes, indices, and what is computed of them.

ONNX computes shapes with ordinary operators (Shape, Gather, Concat, Reshape). Done with tensors, a free batch would
become a constant when the network is traced; done with Python numbers, torch's symbolic sizes pass through. A Known is
made by Shape and stays one as long as `shapes` has the operator; else it becomes a tensor.

The operators name what they want of an input by its annotation:
    Tensor      a tensor                            Operand   a tensor, or a Python number for a constant of one element
    Ints        known integers, as a tuple          Scalar    a Python number if it is constant, else a tensor
    Floats      known floats, as a tuple
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Ints: TypeAlias = tuple[int, ...]
Floats: TypeAlias = tuple[float, ...]
Operand: TypeAlias = Any
Scalar: TypeAlias = Any
Kernel: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Known:
    """`values`: an object array of Python numbers and symbolic sizes; `dtype`: what ONNX says they are."""

    values: np.ndarray
    dtype: torch.dtype

    @classmethod
    def of(cls, values: Any, dtype: torch.dtype = torch.int64) -> Known:
        """From numbers in nested lists, or an array of objects; floats are rounded to their type."""
        if not isinstance(values, np.ndarray):
            values = _array(values)
        if dtype.is_floating_point and dtype != torch.float64:
            values = _each(lambda v: float(np.float32(v)) if isinstance(v, float) else v, values)
        return cls(values, dtype)

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> Known:
        return cls.of(np.array(tensor.tolist(), dtype=object).reshape(tuple(tensor.shape)), tensor.dtype)

    @property
    def concrete(self) -> bool:
        """Whether no number is symbolic."""
        return all(isinstance(value, (bool, int, float)) for value in self.values.flat)

    def numbers(self) -> tuple[Any, ...]:
        return tuple(self.values.flat)

    def tensor(self, device: torch.device | None = None) -> Tensor:
        """The same numbers where kernels can read them."""
        shape = self.values.shape
        if self.concrete:
            return torch.tensor(list(self.values.flat), dtype=self.dtype, device=device).reshape(shape)
        single = [torch.full((1,), value, dtype=self.dtype, device=device) for value in self.values.flat]
        return torch.cat(single).reshape(shape)


def _array(values: Any) -> np.ndarray:
    """Nested lists of numbers as an object array; numpy itself would look into symbolic sizes."""
    shape: list[int] = []
    inner = values
    while isinstance(inner, (list, tuple)):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    flat: Iterable[Any] = [values]
    for _ in shape:
        flat = itertools.chain.from_iterable(flat)
    listed = list(flat)
    result = np.empty(len(listed), object)
    for at, value in enumerate(listed):
        result[at] = value
    return result.reshape(shape)


def _each(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    result = np.empty(values.size, object)
    for at, value in enumerate(values.flat):
        result[at] = function(value)
    return result.reshape(values.shape)
