"""Losses that let a small network learn from a big one."""

from .features import FeatureTargets as FeatureTargets
from .logits import SoftTargets as SoftTargets

__all__ = ["FeatureTargets", "SoftTargets"]
