"""Modules that stand in for costlier ones."""

from .affine import Affine as Affine

__all__ = ["Affine"]
