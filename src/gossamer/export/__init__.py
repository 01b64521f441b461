"""Export: a torch model becomes an ONNX graph and coded weights, in one .goss file."""

from __future__ import annotations

from .packing import Packed as Packed
from .packing import pack as pack

__all__ = ["Packed", "pack"]
