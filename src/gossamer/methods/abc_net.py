"""ABC-Net: weights as a sum of binary bases, with the paper's fixed shifts.

The format MultiBinary under the paper's name; its activations are blocks.MultiSign. M bases of weights and N of activations
cost M N binary products.
Source: Lin, Zhao, Pan, "Towards accurate binary convolutional neural network", NIPS 2017, arXiv:1711.11294.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..formats.multi_binary import MultiBinary


@dataclass(frozen=True, kw_only=True)
class ABCNet(MultiBinary):
    """`bases` signs per weight, scaled by the least squares fit of the layer or of each channel."""
