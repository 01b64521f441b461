"""constants: new initialisers of a graph, under names that are still free."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir


def add(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """A new initialiser, called `name` or, where that is taken, `name.2`, `name.3`, ..."""
    name = _free(graph, name)
    tensor = ir.tensor(values, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def shared(graph: ir.Graph, values: np.ndarray) -> ir.Value:
    """An initialiser of these values: the one that an earlier call made, if any."""
    name = f"{values.dtype}{list(values.shape)}:{values.tobytes().hex() if values.any() else 0}"
    return graph.initializers[name] if name in graph.initializers else add(graph, name, values)


def drop(graph: ir.Graph, value: ir.Value) -> None:
    """Remove an initialiser that nobody reads any more."""
    if value.name is not None and value.name in graph.initializers and not value.uses():
        del graph.initializers[value.name]


def _free(graph: ir.Graph, name: str) -> str:
    if name not in graph.initializers:
        return name
    return next(new for count in itertools.count(2) if (new := f"{name}.{count}") not in graph.initializers)
