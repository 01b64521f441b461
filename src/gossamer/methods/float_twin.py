"""Float twin: the network as it was before its weights and activations were rounded.

A weight on a grid keeps the value that was rounded (its latent part); `unround` makes that the weight again. Methods that
bring a rounded network nearer to the float one compare with the twin: same names, same folded norms.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import nn

from .. import formats, quantizers


def unround(model: nn.Module, layers: Iterable[str]) -> None:
    """Give the weights of layers (paths) back as plain parameters, with the values that were rounded, in place."""
    for layer in layers:
        name = f"{layer}.weight" if layer else "weight"
        latent = formats.parts_of(model, name)[0].detach().clone()
        module, leaf = formats.locate(model, name)
        kept = latent.is_floating_point() and latent.shape == getattr(module, leaf).shape
        formats.detach(module, leaf)
        if kept:
            getattr(module, leaf).data = latent


def float_twin(model: nn.Module) -> nn.Module:
    """A copy in eval mode without quantizers, its weights unrounded; one that keeps no latent value is decoded."""
    twin = copy.deepcopy(model).eval()
    quantizers.detach(twin)
    unround(twin, [name.rpartition(".")[0] for name in formats.attached(twin) if name.endswith("weight")])
    return twin
