"""dither: how far rounding alone may move the outputs of a network with quantized activations.

A packed network adds up integers, the model adds up floats; where a sum lies near the middle between two codes, the
two may round differently, and later layers pass that on. What this can do to an output depends on the network, so it
is measured: the model runs again with uniform noise of half a step, up or down, added before every rounding. Every value
then moves by one code at most, as it may in the file, but far more of them do.

Raises: ExportError for a quantizer that still observes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..quantizers import Quantizer
from .example import Example, call, named_outputs

DRAWS = 2


def rounding(model: nn.Module) -> list[Quantizer]:
    """The quantizers that round."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}
    for name, quantizer in found.items():
        if quantizer.state == "observe":
            raise ExportError(
                f"quantizer {name!r} still observes, so its grid is not known. Settle it (or turn it off) first."
            )
    return [quantizer for quantizer in found.values() if quantizer.state == "quantize"]


def reach(model: nn.Module, example: Example, expected: Mapping[str, Tensor]) -> dict[str, float]:
    """{output: the largest change that dither makes to it, or of integers the share that changes}.

    Empty for a network that rounds no activations.
    """
    quantizers = rounding(model)
    if not quantizers:
        return {}
    generator = torch.Generator().manual_seed(0)

    def shake(quantizer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        value = inputs[0]
        noise = torch.rand(value.shape, generator=generator).to(value) - 0.5
        return (value + noise * quantizer.grid().scale, *inputs[1:])

    hooks = [quantizer.register_forward_pre_hook(shake) for quantizer in quantizers]
    try:
        runs = [named_outputs(call(model, example), list(expected)) for _ in range(DRAWS)]
    finally:
        for hook in hooks:
            hook.remove()
    return {name: max(_change(run[name], value) for run in runs) for name, value in expected.items()}


def _change(shaken: Tensor, value: Tensor) -> float:
    if not value.numel():
        return 0.0
    if not value.dtype.is_floating_point:
        return float((shaken != value).double().mean())
    change = (shaken.double() - value.double()).abs()
    return float(change[change.isfinite()].max()) if bool(change.isfinite().any()) else 0.0
