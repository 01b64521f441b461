"""Figures: sizes, accuracy, latency, machine. Numbers only; nothing here prints or needs torch."""

from __future__ import annotations

from . import machine as machine
from .accuracy import Accuracy as Accuracy
from .accuracy import accuracy as accuracy
from .fresh import fresh_accuracy as fresh_accuracy
from .fresh import fresh_figures as fresh_figures
from .latency import Latency as Latency
from .latency import against_onnxruntime as against_onnxruntime
from .latency import interleave as interleave
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
    "fresh_figures",
    "interleave",
    "machine",
    "weights",
]
