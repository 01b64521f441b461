"""Figures: operations, memory, sizes, accuracy, latency, machine. Numbers only: nothing here prints.

Importing it needs no torch; profiling a torch module does.
"""

from __future__ import annotations

from . import machine as machine
from .accuracy import Accuracy as Accuracy
from .accuracy import accuracy as accuracy
from .compare import Comparison as Comparison
from .compare import compare as compare
from .fresh import fresh_accuracy as fresh_accuracy
from .fresh import fresh_figures as fresh_figures
from .latency import Latency as Latency
from .latency import against_onnxruntime as against_onnxruntime
from .latency import interleave as interleave
from .memory import Memory as Memory
from .memory import liveness as liveness
from .profile import Profile as Profile
from .profile import Row as Row
from .profile import profile as profile
from .size import Weights as Weights
from .size import file_bytes as file_bytes
from .size import weights as weights

__all__ = [
    "Accuracy",
    "Comparison",
    "Latency",
    "Memory",
    "Profile",
    "Row",
    "Weights",
    "accuracy",
    "against_onnxruntime",
    "compare",
    "file_bytes",
    "fresh_accuracy",
    "fresh_figures",
    "interleave",
    "liveness",
    "machine",
    "profile",
    "weights",
]
