"""Losses that let a small network learn from a big one."""

from .logits import SoftTargets as SoftTargets

__all__ = ["SoftTargets"]
