"""TWN: ternary weight networks, with the paper's threshold of 0.7 mean |w| per layer.

All of it is the format Ternary: threshold and scale are found anew in each forward, the gradient goes straight to the
latent weights, activations stay float, and a batch norm takes up the scale.
Source: Li, Zhang, Liu, "Ternary weight networks", 2016, arXiv:1605.04711.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.ternary import Ternary


@dataclass(frozen=True, kw_only=True)
class TWN(Ternary):
    """Ternary by the 0.7 rule (`threshold="ratio"`) or by the least squared error (`threshold="exact"`)."""
