"""Folded rows: the weight and bias that a layer would have if the batch norm behind it were part of it (eval mode).

    a = gamma / sqrt(var + eps)        W_f[o] = a_o W[o]        b_f = (b - mean) a + beta

The size of a row of W alone says nothing where a norm follows: the norm divides it out again. Float64; nothing changes
in the network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .. import formats


def folded_rows(
    model: nn.Module, layer: str, norm: str | None = None, *, dim: int = 0
) -> tuple[Tensor, Tensor]:
    """(W_f in the shape of the weight, b_f [O]) of the layer and the norm at these paths; dim: that of the O rows.

    norm: None, or a norm without running statistics, leaves the weight as it is.
    """
    values = formats.plain_parameters(model)
    weight = values[f"{layer}.weight"].detach().double()
    bias = values.get(f"{layer}.bias")
    shift = weight.new_zeros(weight.shape[dim]) if bias is None else bias.detach().double()
    module = None if norm is None else model.get_submodule(norm)
    if not isinstance(module, _NormBase) or module.running_mean is None or module.running_var is None:
        return weight, shift
    scale = torch.rsqrt(module.running_var.double() + module.eps)
    if module.affine:
        scale = scale * module.weight.detach().double()
    shift = (shift - module.running_mean.double()) * scale
    if module.affine:
        shift = shift + module.bias.detach().double()
    return weight * scale.reshape([-1 if at == dim else 1 for at in range(weight.dim())]), shift
