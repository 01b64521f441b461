"""BNN: weights of one bit, +1 or -1, for networks whose activations are signs as well (blocks.Sign).

    W_b = sign(W)       dL/dW = dL/dW_b       W <- clip(W - update, -1, 1)

The gradient passes the weights' sign unchanged, because the clip already keeps |W| <= 1; the mask |y| <= 1 belongs to the
sign of the activations. A batch norm behind every layer gives it its scale.
Source: Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, "Binarized neural networks", 2016, arXiv:1602.02830, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.binary import Binary


@dataclass(frozen=True, kw_only=True)
class BNN(Binary):
    """Signs without a scale."""

    scale: str = "none"
    slope: str = "identity"
