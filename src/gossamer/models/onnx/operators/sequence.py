"""Sequences: Python lists of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..values import Ints, Known


def SequenceConstruct(*xs: Tensor) -> list[Tensor]:
    return list(xs)


def SequenceAt(sequence: list[Tensor], position: Ints) -> Tensor:
    return sequence[position[0]]


def SequenceLength(sequence: list[Tensor]) -> Known:
    return Known.of(len(sequence))


def SplitToSequence(
    x: Tensor, split: Ints | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Tensor]:
    """`split` of one number: parts of that size; without it, parts of size 1 (the axis is dropped without keepdims)."""
    if split is None:
        return list(torch.split(x, 1, axis)) if keepdims else list(torch.unbind(x, axis))
    return list(torch.split(x, split[0] if len(split) == 1 else list(split), axis))


def ConcatFromSequence(sequence: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)
