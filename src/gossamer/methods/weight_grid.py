"""Weight grid: the points that a weight may take in its present format, for methods that choose among them.

    w_hat = code * scale        code: smallest..largest        scale: spread to the weight's shape

The format is Uniform, MaskedUniform, or Sparse over Uniform; in the last two the places that are not kept stay exactly
zero. Chosen codes are written into the format's own parts, so the weight still decodes, trains and is stored as before.
Raises: FormatError when the weight has no format, another one, or one that does not decode to what was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import formats
from ..errors import FormatError
from ..formats import Sparse, Uniform


@dataclass(frozen=True)
class Rounding:
    """What a choice of codes did to one weight.

    nearest, chosen: mean squared change of the layer's outputs per position, summed over channels, with codes rounded
    to nearest and with the chosen ones, on the calibration data; changed: how many codes differ from the nearest.
    """

    name: str
    nearest: float
    chosen: float
    changed: int


@dataclass(frozen=True)
class WeightGrid:
    """The grid of the weight `name`; tensors of the weight's shape."""

    name: str
    uniform: Uniform
    latent: Tensor  # the weight that is to be rounded, zero where nothing is kept
    scale: Tensor
    kept: Tensor  # bool
    group: int | None  # so many consecutive inputs share a scale; None where all of an output channel do

    @classmethod
    def of(cls, model: nn.Module, name: str) -> WeightGrid:
        """The present grid of a parameter, by its plain name (`conv1.weight`)."""
        formats.locate(model, name)  # says which names there are
        entry = formats.attached(model).get(name)
        if entry is None:
            raise FormatError(
                f"{name}: this weight has no grid to round to. Give it a Uniform format first (Quantize(bits=...))."
            )
        uniform = entry.format.values if isinstance(entry.format, Sparse) else entry.format
        if not isinstance(uniform, Uniform):
            raise FormatError(
                f"{name}: its format is {entry.format.to_dict()}, expected Uniform, MaskedUniform or Sparse(Uniform). "
                "Skip this layer, or quantize it without sharing."
            )
        parts = _parts(model, name)
        mask, latent = parts.pop("mask", None), parts["latent"].detach()
        kept = torch.ones_like(latent, dtype=torch.bool) if mask is None else mask
        spread = uniform._spread(uniform.kept_scale(*parts.values()).detach(), latent).expand_as(latent)
        group = uniform.group if uniform.granularity == "group" and latent.dim() > 1 else None
        return cls(name, uniform, _place(latent, kept), _place(spread, kept, empty=1.0), kept, group)

    def nearest(self, weight: Tensor) -> Tensor:
        """Codes of the nearest points, half to even; the format's own rule."""
        return torch.where(self.kept, self.clip(weight / self.scale).round(), 0)

    def clip(self, codes: Tensor) -> Tensor:
        """Codes cut to the range of the grid."""
        return codes.clamp(self.uniform.smallest, self.uniform.largest)


def write_(model: nn.Module, name: str, codes: Tensor, scale: Tensor | None = None) -> None:
    """Let the weight be `codes` (integers of any type, its shape) on its grid; scale: new values of the scale part."""
    with torch.no_grad():
        parts = _parts(model, name)
        if scale is not None:
            parts["scale"].copy_(scale.reshape(parts["scale"].shape))
        grid = WeightGrid.of(model, name)
        wanted = torch.where(grid.kept, codes.to(grid.scale) * grid.scale, 0)
        latent = parts["latent"]
        latent.copy_(wanted if latent.shape == wanted.shape else wanted[grid.kept].reshape(latent.shape))
        module, leaf = formats.locate(model, name)
        if not torch.equal(getattr(module, leaf), wanted):
            raise FormatError(
                f"{name}: its format {type(grid.uniform).__name__} does not decode to the codes that were chosen. "
                "Attach a plain Uniform format for this method."
            )


def _parts(model: nn.Module, name: str) -> dict[str, Any]:
    """The parts of a format by the last piece of their names: mask, latent, scale."""
    names = formats.attached(model)[name].format.part_names()
    return dict(zip((n.rpartition(".")[2] for n in names), formats.parts_of(model, name), strict=True))


def _place(values: Tensor, kept: Tensor, empty: float = 0.0) -> Tensor:
    """Values of the whole weight, or of the kept places alone, in the weight's shape; `empty` elsewhere."""
    if values.shape == kept.shape:
        return torch.where(kept, values, empty)
    dense = values.new_full(kept.shape, empty)
    dense[kept] = values.reshape(-1)
    return dense
