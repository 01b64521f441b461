"""Figures: sizes, accuracy, latency, machine. Numbers only; nothing here prints or needs torch."""

from .accuracy import Accuracy as Accuracy
from .accuracy import accuracy as accuracy
from .accuracy import fresh_accuracy as fresh_accuracy
from .latency import Latency as Latency
from .latency import against_onnxruntime as against_onnxruntime
from .latency import interleave as interleave
from .machine import machine as machine
from .machine import today as today
from .machine import versions as versions
from .size import Weights as Weights
from .size import file_bytes as file_bytes
from .size import weights as weights

__all__ = [
    "Accuracy",
    "Latency",
    "Weights",
    "accuracy",
    "against_onnxruntime",
    "file_bytes",
    "fresh_accuracy",
    "interleave",
    "machine",
    "today",
    "versions",
    "weights",
]
