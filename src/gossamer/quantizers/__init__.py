"""Quantizers: modules that round activations, where they go in a network, and the grids they round to."""

from __future__ import annotations

from .base import Quantizer as Quantizer
from .grid import Grid as Grid

__all__ = ["Grid", "Quantizer"]
