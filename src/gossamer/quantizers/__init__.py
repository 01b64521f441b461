"""Quantizers: modules that round activations, where they go in a network, and the grids they round to."""

from __future__ import annotations

from .affine import Affine as Affine
from .attach import attach as attach
from .attach import detach as detach
from .attach import quantized as quantized
from .attach import quantizers as quantizers
from .attach import set_state as set_state
from .attach import unquantized as unquantized
from .base import Quantizer as Quantizer
from .calls import record as record
from .clipped import Clipped as Clipped
from .dorefa import DoReFaActivation as DoReFaActivation
from .grid import Grid as Grid
from .interval import LearnedInterval as LearnedInterval
from .learned_step import LearnedStep as LearnedStep
from .placement import Place as Place
from .placement import Placement as Placement
from .placement import place as place

__all__ = [
    "Affine",
    "Clipped",
    "DoReFaActivation",
    "Grid",
    "LearnedInterval",
    "LearnedStep",
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
