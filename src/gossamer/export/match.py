"""match: which initialiser of the graph is which weight of the model.

    by name     the exporter keeps a parameter's name wherever it does not change the parameter
    by value    any initialiser that equals a weight up to a permutation p of its axes:
                initialiser = transpose(weight, p)

A weight that carries a format must be found, or its compression would be lost; what is not found is
returned with the reason. Initialisers of equal contents become one (tied weights, equal constants), and a
transpose that is the only reader of a weight is done when the file is opened instead of in the graph.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from ..artifact import Stored
from .simplify import is_weight

MAX_PERMUTED_AXES = 5
MAX_INLINE = 16  # floats of an unnamed constant that may stay in the graph
STORED_TYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "float64",
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "uint8",
    ir.DataType.INT32: "int32",
}


@dataclass(frozen=True)
class Weight:
    """An initialiser that the file stores apart: it is the model's tensor `name`, transposed by `perm`.

    stored: how it is kept, where that is neither the format of the model's tensor nor dense.
    """

    value: ir.Value
    name: str
    perm: tuple[int, ...] | None = None
    stored: Stored | None = None

    @property
    def dtype(self) -> str:
        """The initialiser's type in the graph."""
        assert self.value.const_value is not None
        return STORED_TYPES[self.value.const_value.dtype]


def array(value: ir.Value) -> np.ndarray:
    """The contents of an initialiser; bfloat16, which numpy lacks, as float32."""
    assert value.const_value is not None
    contents = value.const_value.numpy()
    return contents.astype(np.float32) if value.const_value.dtype == ir.DataType.BFLOAT16 else contents


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The shape of an initialiser."""
    assert value.const_value is not None
    return tuple(size for size in value.const_value.shape if isinstance(size, int))


def find(
    model: ir.Model, formatted: Mapping[str, np.ndarray], unused: Collection[str]
) -> tuple[dict[str, Weight], dict[str, str]]:
    """({initialiser: its formatted weight}, {weight that is not there: the reason}).

    formatted: the dense value of every weight with a format; unused: those that nobody reads.
    """
    values = {name: value for name, value in model.graph.initializers.items() if is_weight(value)}
    found = {
        name: Weight(value, name)
        for name, value in values.items()
        if name in formatted and permutation(formatted[name], value, moves=False) is not None
    }
    lost = {}
    for name in [name for name in formatted if name not in found and name not in unused]:
        hits = 0
        for other, value in values.items():
            perm = None if other in found else permutation(formatted[name], value)
            if perm is not None:
                found[other] = Weight(value, name, None if perm == tuple(range(len(perm))) else perm)
                hits += 1
        if not hits:
            lost[name] = "no initialiser of the graph has its values: the exporter computed with it"
    return found, lost


def permutation(weight: np.ndarray, value: ir.Value, *, moves: bool = True) -> tuple[int, ...] | None:
    """p with value = transpose(weight, p), or None; without `moves`, only the identity."""
    shape, identity = shape_of(value), tuple(range(weight.ndim))
    if sorted(shape) != sorted(weight.shape):
        return None
    moving = moves and weight.ndim <= MAX_PERMUTED_AXES
    candidates = itertools.permutations(identity) if moving else iter([identity])
    fitting = [perm for perm in candidates if tuple(weight.shape[axis] for axis in perm) == shape]
    if not fitting:
        return None
    contents = array(value)
    return next((perm for perm in fitting if np.array_equal(weight.transpose(perm), contents)), None)


def merge_copies(model: ir.Model, found: dict[str, Weight]) -> None:
    """One initialiser for each formatted weight, and one for all other initialisers of equal contents."""
    first: dict[str, Weight] = {}
    for name, weight in list(found.items()):
        kept = first.setdefault(weight.name, weight)
        if kept is not weight:
            _replace(
                model, weight.value, kept.value, _between(kept.perm, weight.perm, len(shape_of(weight.value)))
            )
            del found[name]
    groups: dict[tuple[object, ...], list[ir.Value]] = {}
    ordered = sorted(model.graph.initializers.values(), key=lambda value: value.name not in found)
    for value in ordered:
        if value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
            continue
        contents = array(value)
        key = (shape_of(value), value.const_value.dtype, zlib.crc32(np.ascontiguousarray(contents).data))
        same = groups.setdefault(key, [])
        twin = next((other for other in same if np.array_equal(array(other), contents)), None)
        if twin is None:
            same.append(value)
        else:
            _replace(model, value, twin, None)
            found.pop(value.name or "", None)


def absorb_transposes(model: ir.Model, found: dict[str, Weight]) -> dict[ir.Value, tuple[int, ...]]:
    """Remove every transpose that is the only reader of a weight; {new initialiser: permutation}."""
    moved: dict[ir.Value, tuple[int, ...]] = {}
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not is_weight(source) or len(source.uses()) != 1 or source.is_graph_output():
            continue
        if node.outputs[0].is_graph_output() or source.name is None or source.const_value is None:
            continue
        order = node.attributes.get_ints("perm", tuple(range(len(shape_of(source))))[::-1])
        weight = found.pop(source.name, Weight(source, source.name))
        before = weight.perm or tuple(range(len(order)))
        perm = tuple(before[axis] for axis in order)
        del model.graph.initializers[source.name]
        tensor = source.const_value
        new = ir.Value(
            name=source.name,
            shape=ir.Shape([shape_of(source)[axis] for axis in order]),
            type=source.type,
            const_value=ir.LazyTensor(
                partial(_transposed, tensor, order),
                dtype=tensor.dtype,
                shape=ir.Shape([shape_of(source)[axis] for axis in order]),
            ),
        )
        node.outputs[0].replace_all_uses_with(new)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(new)
        moved[new] = perm
        found[source.name] = Weight(new, weight.name, perm)
    return moved


def weights(model: ir.Model, found: Mapping[str, Weight], named: Collection[str]) -> list[Weight]:
    """The initialisers that are stored apart, in the order in which the graph uses them."""
    ordered = dict.fromkeys(
        value for node in model.graph.all_nodes() for value in node.inputs if value is not None
    )
    stored = []
    for value in ordered:
        if value.name is not None and value.name in found:
            stored.append(found[value.name])
            continue
        if not is_weight(value) or value.name is None or value.const_value is None:
            continue
        if value.const_value.dtype not in STORED_TYPES:
            continue
        if value.name in named or value.const_value.size > MAX_INLINE:
            stored.append(Weight(value, value.name))
    return stored


def _transposed(tensor: ir.TensorProtocol, order: Sequence[int]) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().transpose(order))


def _between(
    kept: tuple[int, ...] | None, other: tuple[int, ...] | None, axes: int
) -> tuple[int, ...] | None:
    """q with other = transpose(kept, q), where both are permutations of one weight."""
    first, second = kept or tuple(range(axes)), other or tuple(range(axes))
    order = tuple(first.index(axis) for axis in second)
    return None if order == tuple(range(axes)) else order


def _replace(model: ir.Model, old: ir.Value, new: ir.Value, perm: tuple[int, ...] | None) -> None:
    """Let every reader of `old` read `new` (transposed by `perm`), and drop `old`."""
    target = new
    if perm is not None:
        node = ir.node("Transpose", [new], {"perm": perm})
        model.graph.insert_before(model.graph[0], node)
        target = node.outputs[0]
    old.replace_all_uses_with(target)
    if old.name is not None:
        del model.graph.initializers[old.name]
