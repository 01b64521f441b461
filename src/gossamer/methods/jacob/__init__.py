"""Integer-arithmetic-only quantization: the arithmetic, and an engine of integers.

    fixed_point   multipliers, rounding and clamps of an integer processor, bit for bit
    network       IntegerNetwork runs a QDQ graph with them: a reference for engines that are fast

Source: Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko, "Quantization and training of neural networks for
efficient integer-arithmetic-only inference", CVPR 2018, arXiv:1712.05877.
"""

from .network import IntegerNetwork as IntegerNetwork
from .network import Run as Run

__all__ = ["IntegerNetwork", "Run"]
