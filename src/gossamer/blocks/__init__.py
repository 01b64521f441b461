"""Modules that stand in for costlier ones."""

from .affine import Affine as Affine
from .sign import MultiSign as MultiSign
from .sign import Sign as Sign

__all__ = ["Affine", "MultiSign", "Sign"]
