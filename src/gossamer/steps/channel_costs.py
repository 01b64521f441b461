"""channel_costs: what a choice of channels costs, as a share of the original network.

    estimated   macs, parameters: every layer's figure shrinks with the entries its weight keeps (pruning.Shrinkage)
    measured    macs, parameters, size, latency: of the network that the choice leaves

Multiply-adds between activations are in no weight, so an estimate is checked by counting what was cut.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..export import pack
from ..measure import profile
from ..measure.timing import time_share
from ..pruning import Group
from ..pruning.budget import Shrinkage
from ..pruning.group import Choice

COUNTED, MEASURED = ("macs", "parameters"), ("size", "latency")


def amounts(kind: str, model: nn.Module, example: Any) -> tuple[dict[str, float], float]:
    """{tensor: its multiply-adds or entries}, and what belongs to no tensor."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    if kind == "parameters":
        return {name: float(tensor.numel()) for name, tensor in named.items()}, 0.0
    counted = profile(model, example)
    owned = {f"{row.name}.weight": float(row.cost.macs) for row in counted.rows}
    owned = {name: macs for name, macs in owned.items() if name in named and macs}
    return owned, counted.macs - sum(owned.values())


def estimate(kind: str, model: nn.Module, example: Any, groups: list[Group]) -> Callable[[Choice], float]:
    """The figure of a choice without cutting anything."""
    parts, fixed = amounts(kind, model, example)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    return Shrinkage(groups, parts, shapes, fixed=fixed)


def count(kind: str, model: nn.Module, example: Any) -> float:
    """Multiply-adds or parameters of a network."""
    if kind == "parameters":
        return float(sum(parameter.numel() for parameter in model.parameters()))
    return float(profile(model, example).macs)


def measured_share(kind: str, model: nn.Module, original: nn.Module, example: Any) -> float:
    """Bytes of the packed file, or milliseconds in ONNX Runtime, over those of the original network."""
    if kind == "latency":
        return time_share(model, original, example)
    return packed_bytes(model, example) / packed_bytes(original, example)


def packed_bytes(model: nn.Module, example: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        pack(model, path := Path(folder) / "model.goss", example)
        return path.stat().st_size
