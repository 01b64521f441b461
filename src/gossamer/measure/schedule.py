"""Schedule: the operators a network executes, in order, with the activations each reads and writes.

Both front ends end here (`dispatch` for torch, `onnx.graph` for ONNX and packed files): rows, totals, memory
and pictures are made from what they return, a `Recorded`. An activation is a number; views of one memory share
the number of their base, and an operator that works in place writes the number it reads. Weights are not
activations: they are names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..cost import Cost


@dataclass(frozen=True)
class Operation:
    """One executed operator; `layer` is the module or node it belongs to."""

    op: str  # "aten.convolution", "Conv"
    layer: str  # "layer1.0.conv1"; "" for the model itself
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    cost: Cost = field(default_factory=Cost)
    weights: tuple[str, ...] = ()
    counted: bool = True  # False: no rule knows its operations; the report lists it
    elementwise: bool = False  # could overwrite the input it reads first, where that is its last use
    folds: bool = False  # a batch norm at inference: per-channel scale and shift
    takes_fold: bool = False  # a convolution or matrix product that could absorb one
    output_shape: tuple[int, ...] = ()  # of its first output
    node: str = ""  # the node's own name in an ONNX graph


@dataclass(frozen=True)
class Schedule:
    """Operations in the order of execution; `sizes` are the bytes of each activation."""

    operations: tuple[Operation, ...]
    sizes: Mapping[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A module or node that executes operations or owns weights."""

    name: str
    kind: str  # "Conv2d", "Conv"


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer, once for each memory: tied weights belong to the layer named first.

    `numel` counts elements that no weight before it covers; `nonzero` is None where the values are not at
    hand (a model on the meta device); `stored_bytes` is None where nothing was packed.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    numel: int
    dense_bytes: int
    nonzero: int | None = None
    stored_bytes: int | None = None
    trained: bool = True  # False: a buffer


@dataclass(frozen=True)
class Recorded:
    """What a front end found: the schedule, the layers in order of execution, and the weights."""

    schedule: Schedule
    layers: tuple[Layer, ...]
    weights: tuple[Weight, ...]
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape)
    notes: tuple[str, ...] = ()


def fold_norms(schedule: Schedule) -> Schedule:
    """The schedule with each batch norm that directly follows its convolution merged into it.

    A norm is merged when its input is written by one operation and read by the norm alone; the layer then
    adds a bias if it had none. A norm before its convolution (pre-activation) stays.
    """
    writers: dict[int, list[int]] = {}
    readers: dict[int, list[int]] = {}
    for index, operation in enumerate(schedule.operations):
        for tensor in operation.writes:
            writers.setdefault(tensor, []).append(index)
        for tensor in operation.reads:
            readers.setdefault(tensor, []).append(index)
    operations: list[Operation | None] = list(schedule.operations)
    renamed: dict[int, int] = {}
    for index, norm in enumerate(schedule.operations):
        if not norm.folds or not norm.reads:
            continue
        source = norm.reads[0]
        made = writers.get(source, [])
        if readers[source] != [index] or len(made) != 1 or source in schedule.outputs:
            continue
        before = operations[made[0]]
        if before is None or not before.takes_fold:
            continue
        shifts = norm.cost.other_ops.get("add", 0)  # one for each output
        cost = replace(before.cost, bias_adds=max(before.cost.bias_adds, shifts))
        operations[made[0]] = replace(before, cost=cost)
        operations[index] = None
        renamed[norm.writes[0]] = source

    def name(tensor: int) -> int:
        while tensor in renamed:
            tensor = renamed[tensor]
        return tensor

    kept = tuple(
        replace(o, reads=tuple(map(name, o.reads)), writes=tuple(map(name, o.writes)))
        for o in operations
        if o is not None
    )
    return replace(schedule, operations=kept, outputs=tuple(map(name, schedule.outputs)))
