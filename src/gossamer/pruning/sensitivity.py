"""Sensitivity: prune one layer alone over a grid of densities and measure, without retraining.

The curve tells how much each layer can lose; sensitive layers (first convolution, last linear) get a milder cut.
Source: Han, Pool, Tran, Dally, NIPS 2015, arXiv:1506.02626, figure 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .criteria import magnitude
from .select import by_fraction

GRID = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.08, 0.05)


@torch.no_grad()
def scan(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    evaluate: Callable[[nn.Module], float],
    *,
    densities: Sequence[float] = GRID,
) -> dict[str, dict[float, float]]:
    """`{layer: {density: evaluate(model)}}`; `weights` are the model's own parameters and are left as they were.

    evaluate: a figure that is better when higher, on data that is not the test split.
    """
    table: dict[str, dict[float, float]] = {}
    for name, weight in weights.items():
        before, table[name] = weight.detach().clone(), {}
        try:
            for density in densities:
                weight.data = before * by_fraction(magnitude(before), 1 - density)
                table[name][density] = evaluate(model)
        finally:
            weight.data = before
    return table


def densities_for(table: Mapping[str, Mapping[float, float]], *, max_drop: float) -> dict[str, float]:
    """Per layer the lowest scanned density whose figure is within `max_drop` of the layer's best."""
    if max_drop < 0:
        raise OptionError(f"max_drop is a loss in the measured figure, at least 0; received {max_drop!r}.")
    chosen = {}
    for name, curve in table.items():
        best = max(curve.values())
        chosen[name] = min(density for density, figure in curve.items() if figure >= best - max_drop)
    return chosen
