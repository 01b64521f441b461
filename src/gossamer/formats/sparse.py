"""Sparse: only some entries of a weight are kept; the others are exactly zero and stay so.

    w_hat[mask] = values, zero elsewhere
    mask: bool [*shape], fixed      values: an inner format over the kept entries in C order, shape [n]

Stored: positions by the cheapest of several exact codings (gaps with escape, bitmap, with or without the dead rows
and columns; `artifact.positions`), plus the inner fields. An entry whose stored value is zero is dropped from the
file, and where a grid of codes with its zeros is cheaper than positions, that is what the file keeps.
Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections", NIPS 2015, arXiv:1506.02626; relative
index: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import codec
from ..artifact.layouts import rebuild
from ..artifact.positions import encode_positions
from ..artifact.stored import Floats, Ints, Stored
from ..errors import FormatError
from .base import Parts, WeightFormat, check_finite
from .dense import Dense


@dataclass(frozen=True, kw_only=True)
class Sparse(WeightFormat):
    """Keeps the non-zero entries of what it encodes, in the inner format `values`."""

    layout: ClassVar[str] = "sparse"
    own_parts: ClassVar[tuple[str, ...]] = ("mask",)

    values: WeightFormat = field(default_factory=Dense)

    def encode(self, dense: Tensor) -> Parts:
        check_finite(dense, "Sparse")
        mask = dense.detach() != 0
        return (mask, *self.values.encode(dense.detach()[mask]))

    def decode(self, *parts: Tensor) -> Tensor:
        (mask,), below = self.split(*parts)
        dense: Tensor = _Place.apply(self.values.decode(*below["values"]), mask)  # type: ignore[no-untyped-call]  # torch's stub
        return dense

    def store(self, *parts: Tensor) -> Stored:
        (mask,), below = self.split(*parts)
        inner = self.values.store(*below["values"])
        kept = rebuild(inner) != 0
        flat = mask.detach().cpu().numpy().reshape(-1).copy()
        flat[flat] = kept
        fields, options = encode_positions(flat.reshape(mask.shape))
        sparse = Stored(self.layout, tuple(mask.shape), fields, {"values": _select(inner, kept)}, options)
        if inner.layout != "uniform":
            return sparse
        grid = _spread(inner, flat, kept, tuple(mask.shape))
        return min(sparse, grid, key=_cost_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {type(self).__name__: {"values": self.values.to_dict()}}


class _Place(torch.autograd.Function):
    """Values [n] at the True places of a mask; numpy needs no index of the whole mask, as torch's masked_scatter does."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        dense = values.new_zeros(mask.shape)
        if values.device.type != "cpu" or values.dtype != torch.float32:
            return dense.masked_scatter_(mask, values)
        dense.numpy()[mask.numpy()] = values.detach().numpy()
        return dense

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grads[0].masked_select(mask), None


def _select(stored: Stored, kept: np.ndarray[Any, Any]) -> Stored:
    """The node over the kept entries only; every field with one value per entry is cut."""
    if stored.inner:
        raise FormatError(
            f"Sparse: values of layout {stored.layout!r} hold inner nodes. Use a leaf format inside Sparse."
        )
    fields = {
        name: dataclasses.replace(f, values=f.values[kept]) if name in ("codes", "values") else f
        for name, f in stored.fields.items()
    }
    return dataclasses.replace(stored, shape=(int(kept.sum()),), fields=fields)


def _spread(
    inner: Stored, flat: np.ndarray[Any, Any], kept: np.ndarray[Any, Any], shape: tuple[int, ...]
) -> Stored:
    """A uniform grid over the whole shape, with the code of zero where nothing is kept."""
    codes = inner.fields["codes"]
    assert isinstance(codes, Ints)
    grid = np.full(flat.size, inner.options["offset"], codes.values.dtype)
    grid[flat] = codes.values[kept]
    return dataclasses.replace(inner, shape=shape, fields={**inner.fields, "codes": Ints(grid, codes.width)})


def _cost_bytes(stored: Stored) -> int:
    """Exact bytes of all fields of a tree."""
    total = 0
    for _, node in stored.walk():
        for f in node.fields.values():
            if isinstance(f, Floats):
                total += f.values.size * (4 if f.dtype == "float32" else 2)
            else:
                total += len(codec.choose(f.values, f.width).payload)
    return total
