"""Quantizers: modules that round activations, where they go in a network, and the grids they round to."""

from __future__ import annotations

from .attach import attach as attach
from .attach import detach as detach
from .attach import quantized as quantized
from .attach import quantizers as quantizers
from .attach import set_state as set_state
from .attach import unquantized as unquantized
from .base import Quantizer as Quantizer
from .calls import record as record
from .grid import Grid as Grid
from .placement import Place as Place
from .placement import Placement as Placement
from .placement import place as place

__all__ = [
    "Grid",
    "Place",
    "Placement",
    "Quantizer",
    "attach",
    "detach",
    "place",
    "quantized",
    "quantizers",
    "record",
    "set_state",
    "unquantized",
]
