"""Sensitivity: what it costs to round one layer alone, with all others float.

    error = sum |logits(one layer rounded) - logits(float)|^2 / sum |logits(float)|^2        on samples of the validation split
    drop  = accuracy(float) - accuracy(one layer rounded), in points, on the same samples

A layer is rounded by its weights, by the activations that it reads, or by both. The errors of single layers nearly add up to
that of the whole network, so the largest say where bits are missing. The error moves with every logit; the drop only where
an answer turns, a sample at a time.
Source: the layer-wise scan of Wu et al., "Integer quantization for deep learning inference", 2020, arXiv:2004.09602.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import formats, quantizers
from ..data import Data, Split
from ..methods.float_twin import unround
from ..quantizers import Place

BATCH = 64


@dataclass(frozen=True)
class Row:
    """One layer; errors by what is rounded (None: not asked for, or nothing to round), the drop with both."""

    layer: str
    weights: float | None
    activations: float | None
    both: float
    drop_points: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def scan(
    model: nn.Module,
    layers: Sequence[str],
    places: Sequence[Place],
    split: Split,
    data: Data,
    *,
    apart: bool = True,
) -> list[Row]:
    """The rows of a rounded network, in the order of `layers`; apart: also weights alone and activations alone.

    places: where its quantizers sit, with the layers that each one feeds.
    """
    values = formats.plain_parameters(model)
    rounded = {layer: values[f"{layer}.weight"].detach().clone() for layer in layers}
    twin = copy.deepcopy(model).eval()
    unround(twin, [name.rpartition(".")[0] for name in formats.attached(twin) if name.endswith("weight")])
    quantizers.set_state(twin, "off")
    wanted, truth = _logits(twin, split, data), torch.from_numpy(split.labels)
    size, right = float(wanted.double().square().sum()), _right(wanted, truth)
    rows = []
    for layer in layers:
        reads = _reads(layer, places, quantizers.quantizers(twin))

        def measured(
            weights: bool, activations: bool, layer: str = layer, reads: list[Any] = reads
        ) -> tuple[float, float]:
            logits = _with(
                twin, layer, rounded[layer] if weights else None, reads if activations else [], split, data
            )
            error = float((logits - wanted).double().square().sum()) / max(size, 1e-30)
            return error, 100 * (right - _right(logits, truth))

        both, drop = measured(True, True)
        alone = measured(True, False)[0] if apart else None
        inputs = measured(False, True)[0] if apart and reads else None
        rows.append(Row(layer, alone, inputs, both, drop))
    return rows


def _reads(layer: str, places: Sequence[Place], known: Mapping[str, Any]) -> list[Any]:
    """The quantizers of what a layer reads."""
    return [
        known[place.name]
        for place in places
        if place.name in known and any(feed.partition(" ")[2] == layer for feed in place.feeds)
    ]


def _with(
    twin: nn.Module, layer: str, weight: Tensor | None, reads: Sequence[Any], split: Split, data: Data
) -> Tensor:
    """The logits of the float network with this weight in the layer and these quantizers at work."""
    parameter = twin.get_submodule(layer).weight
    assert isinstance(parameter, Tensor)
    before = parameter.data
    try:
        if weight is not None:
            parameter.data = weight
        for quantizer in reads:
            quantizer.state = "quantize"
        return _logits(twin, split, data)
    finally:
        parameter.data = before
        for quantizer in reads:
            quantizer.state = "off"


def _logits(model: nn.Module, split: Split, data: Data) -> Tensor:
    parts = []
    for start in range(0, len(split), BATCH):
        raw, _ = split.take(np.arange(start, min(start + BATCH, len(split))))
        parts.append(model(torch.from_numpy(data.preprocess(raw))))
    return torch.cat(parts)


def _right(logits: Tensor, truth: Tensor) -> float:
    return float((logits.argmax(1) == truth).float().mean())
