"""rescale: multiply the rows of a weight, whatever its format, as folding a batch norm does.

    w'[o] = a[o] w[o]

    no format        the weight itself
    Sparse(Dense)    the kept values; positions stay
    signs of one base
                     they stay, up to sign, and each row gets the scale |a[o]| s: the format becomes ScaledBinary
    integers times a scale (Uniform, LSQ, QIL, DoReFa, Ternary, and Sparse over them or over signs)
                     the same of codes: the format becomes Uniform per channel

Nothing is rounded anew. Other formats (a codebook is shared by all rows; sums of several signs) cannot be rescaled:
`can_rescale` says so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..artifact.stored import Floats, Ints, Stored
from ..errors import FormatError
from .attach import attach, attached, detach, locate, parts_of
from .base import Parts, WeightFormat
from .binary import Binary
from .dense import Dense
from .scaled_binary import ScaledBinary
from .sparse import Sparse
from .uniform import Uniform


def can_rescale(model: nn.Module, name: str) -> bool:
    """Whether the rows of the weight `name` can be multiplied without rounding it anew."""
    entry = attached(model).get(name)
    if entry is None:
        return True
    format = entry.format
    if isinstance(format, Sparse) and type(format.values) is Dense:
        return True
    with torch.no_grad():
        return _scale(format.store(*parts_of(model, name))) is not None


@torch.no_grad()
def rescale(model: nn.Module, name: str, factors: Tensor) -> None:
    """Multiply row o of the weight `name` by factors[o], in place; factors: float [O]."""
    module, leaf = locate(model, name)
    entry = attached(model).get(name)
    dense = getattr(module, leaf).detach()
    spread = factors.double().reshape(-1, *([1] * (dense.dim() - 1)))
    if entry is None:
        getattr(module, leaf).data = (dense.double() * spread).to(dense.dtype)
        return
    format, parts = entry.format, parts_of(model, name)
    new: tuple[WeightFormat, Parts]
    if isinstance(format, Sparse) and type(format.values) is Dense:
        mask, values = parts
        scaled = values.double() * spread.expand_as(dense)[mask]
        new = (format, (mask, scaled.to(values.dtype)))
    else:
        stored = format.store(*parts)
        step = _scale(stored)
        if step is None:
            raise FormatError(
                f"{name}: rows of the format {format.to_dict()} share their values and cannot be rescaled. Fold norms "
                "(FreezeNorms) before this format is attached."
            )
        made = _signs if stored.layout == ScaledBinary.layout else _uniform
        new = made(format, dense, step, factors)
    detach(module, leaf)
    attach(module, leaf, *new)


def _signs(format: WeightFormat, dense: Tensor, step: Tensor, factors: Tensor) -> tuple[WeightFormat, Parts]:
    slope = format.slope if isinstance(format, Binary | ScaledBinary) else "clipped"
    scale = (step.double() * factors.double().abs()).float().expand(dense.shape[0]).clone()
    turned = (factors < 0).reshape(-1, *([1] * (dense.dim() - 1)))
    return ScaledBinary(slope=slope), (torch.where((dense < 0) ^ turned, -1.0, 1.0), scale)


def _uniform(
    format: WeightFormat, dense: Tensor, step: Tensor, factors: Tensor
) -> tuple[WeightFormat, Parts]:
    rows = (-1, *([1] * (dense.dim() - 1)))
    tiny = torch.finfo(torch.float32).tiny  # a row of zeros may have the scale zero
    codes = (dense.double() / step.double().clamp_min(tiny).reshape(rows)).round()
    scale = (step.double() * factors.double().abs()).float().clamp_min(tiny)
    if scale.numel() != dense.shape[0]:
        scale = scale.expand(dense.shape[0]).clone()
    latent = (codes * factors.double().sign().reshape(rows)).float() * scale.reshape(rows)
    largest = int(codes.abs().max()) if codes.numel() else 1
    bits = max(format.bits if isinstance(format, Uniform) and format.bits else 2, largest.bit_length() + 1)
    return Uniform(bits=bits, granularity="channel"), (latent, scale)


def _scale(stored: Stored) -> Tensor | None:
    """The scale of integers, one or one per row; None for another kind of storage."""
    node = stored.inner["values"] if stored.layout == "sparse" else stored
    codes, scale = node.fields.get("codes", node.fields.get("signs")), node.fields.get("scale")
    if node.layout not in ("uniform", "binary") or {"group", "bases"} & node.options.keys():
        return None
    if not isinstance(codes, Ints) or not isinstance(scale, Floats):
        return None
    return torch.from_numpy(scale.values.copy())
