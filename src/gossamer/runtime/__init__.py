"""The runtime: open a .goss file and run it in ONNX Runtime, without torch."""

from __future__ import annotations

from .explain import Row as Row
from .plain import unpack as unpack
from .plain import unpack_to as unpack_to
from .ports import Port as Port
from .session import Session as Session
from .session import open as open

__all__ = ["Port", "Row", "Session", "open", "unpack", "unpack_to"]
