"""Integer-arithmetic-only quantization: the arithmetic, an engine of integers, and the training that leads to them.

    fixed_point       multipliers, rounding and clamps of an integer processor, bit for bit
    float_multiplier  the same steps with the float32 multipliers of ONNX Runtime, to compare with
    network           IntegerNetwork runs a QDQ graph with them: a reference for engines that are fast
    folded            FoldedLayer trains a convolution and its batch norm as the layer they will become; fold, freeze, finish
    current_range     CurrentRange is the grid of a layer without a norm while it trains

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and training of neural networks for
efficient integer-arithmetic-only inference", CVPR 2018, arXiv:1712.05877.
"""

from .current_range import CurrentRange as CurrentRange
from .folded import FoldedLayer as FoldedLayer
from .folding import finish as finish
from .folding import fold as fold
from .folding import fold_pairs as fold_pairs
from .folding import foldable as foldable
from .folding import folded_layers as folded_layers
from .folding import freeze as freeze
from .network import IntegerNetwork as IntegerNetwork
from .network import Run as Run

__all__ = [
    "CurrentRange",
    "FoldedLayer",
    "IntegerNetwork",
    "Run",
    "finish",
    "fold",
    "fold_pairs",
    "foldable",
    "folded_layers",
    "freeze",
]
