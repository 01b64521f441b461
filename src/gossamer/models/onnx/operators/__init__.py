"""The operators of ONNX as torch functions, each named as in ONNX: inputs by position, attributes by keyword.

A keyword `opset`, `outputs` (how many) or `device` is filled in by the network. An attribute that became an input in a
later opset has one name for both.
"""

from __future__ import annotations

import inspect
from types import ModuleType

from ..values import Kernel
from . import (
    activation,
    arithmetic,
    create,
    index,
    normalization,
    products,
    quantize,
    reduce,
    resize,
    sequence,
    shape,
    windows,
)

__all__ = ["operators"]


def operators(module: ModuleType) -> dict[str, Kernel]:
    """{ONNX operator: function} of a module, by their names."""
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name[0].isupper() and function.__module__ == module.__name__
    }


OPERATORS: dict[str, Kernel] = {
    name: function
    for module in (
        *(activation, arithmetic, create, index, normalization, products),
        *(quantize, reduce, resize, sequence, shape, windows),
    )
    for name, function in operators(module).items()
}
