"""profile: what a network costs, layer by layer, every figure with its unit in its name.

    profile(model, example)       a torch module
    profile("model.goss")         a packed file: the same table, with the bytes that are stored
    profile("model.onnx")         any ONNX file

A row is a module (torch) or a node (ONNX) that executes operations or owns weights; parameters count once per
memory, operations once per execution. Batch norms that follow their convolution count as folded into it, as every
engine runs them; `fold_norms=False` leaves them. What no rule can count is listed in `uncounted`, never as zero.

Peak activation bytes are a lower bound of what an allocator needs for this order of operations; `lower_bound_bytes`
holds for every order. Energy is not estimated. MACs are not speed: measure `latency`.
Raises: ModelError for an example that does not fit, MeasureError for what cannot be counted at all, OptionError
for unknown columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cost import Cost
from ..errors import MeasureError, OptionError, nearest
from .latency import Latency
from .memory import Memory, liveness
from .schedule import Recorded, Schedule, Weight, fold_norms

COLUMNS = (
    *("order", "name", "calls", "params", "nonzero", "dense_bytes", "stored_bytes", "macs", "macs_nonzero"),
    *("flops", "bias_adds", "other_ops", "traffic_bytes", "intensity", "output_bytes", "latency_ms"),
)


@dataclass(frozen=True)
class Row:
    """One layer. `calls` are executed operations; `latency_ms` is its own time, inner layers left out."""

    name: str
    kind: str
    calls: int
    params: int
    buffers: int
    nonzero: int | None
    dense_bytes: int
    stored_bytes: int | None
    cost: Cost
    output_shape: tuple[int, ...]
    output_bytes: int
    latency_ms: float | None = None

    def value(self, column: str) -> Any:
        """The figure of a column of COLUMNS; 0 where there is none."""
        if column == "other_ops":
            return self.cost.total_other_ops
        found = getattr(self, column) if hasattr(self, column) else getattr(self.cost, column)
        return 0 if found is None else found

    @property
    def sparsity(self) -> float | None:
        """Fraction of parameters that are zero."""
        return 1 - self.nonzero / self.params if self.nonzero is not None and self.params else None


@dataclass(frozen=True)
class Uncounted:
    """Calls of one operator that no rule can count; their bytes are those of the outputs."""

    op: str
    calls: int
    output_bytes: int
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """Rows in order of execution, their sum, what was not counted, memory and latency."""

    name: str
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    rows: tuple[Row, ...]
    total: Row
    uncounted: tuple[Uncounted, ...]
    memory: Memory
    schedule: Schedule
    norms_folded: bool
    latency: Mapping[str, Latency] = field(default_factory=dict)
    threads: int | None = None
    file_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def params(self) -> int:
        """Trained parameters, each memory once."""
        return self.total.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates that a dense kernel executes."""
        return self.total.cost.macs

    @property
    def flops(self) -> int:
        """2 MACs and the additions of biases."""
        return self.total.cost.flops

    @property
    def other_ops(self) -> Mapping[str, int]:
        """Operations that are no multiply-accumulates, by kind."""
        return self.total.cost.other_ops

    @property
    def peak_activation_bytes(self) -> int:
        """The most bytes of activations alive at once, in this order of operations."""
        return self.memory.peak_bytes

    def sorted(self, column: str) -> tuple[Row, ...]:
        """The rows, largest first by a column (by name: alphabetically; order: as executed)."""
        if column not in COLUMNS:
            raise OptionError(f"profile has no column {column!r}. {nearest(column, COLUMNS)}")
        if column == "order":
            return self.rows
        return tuple(sorted(self.rows, key=lambda row: row.value(column), reverse=column != "name"))

    def at_depth(self, depth: int) -> Profile:
        """The same figures with layers joined below `depth` names: "layer1.0.conv1" is "layer1" at 1."""
        if depth < 1:
            raise OptionError(f"depth is {depth}, but must be at least 1.")
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(".".join(row.name.split(".")[:depth]), []).append(row)
        rows = tuple(_join(name, rows) for name, rows in groups.items())
        return replace(self, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; keys as in docs/json.md."""
        return {
            "name": self.name,
            "file_bytes": self.file_bytes,
            "inputs": {
                name: {"dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in self.inputs.items()
            },
            "norms_folded": self.norms_folded,
            "total": _row(self.total),
            "memory": {
                "peak_activation_bytes": self.memory.peak_bytes,
                "lower_bound_bytes": self.memory.lower_bound_bytes,
                "at_layer": self.peak_layer,
                "live": [
                    {"layer": piece.layer or "input", "bytes": piece.bytes} for piece in self.memory.live
                ],
                "timeline_bytes": list(self.memory.timeline),
            },
            "uncounted": [asdict(item) | {"layers": list(item.layers)} for item in self.uncounted],
            "latency": {name: asdict(value) for name, value in self.latency.items()},
            "threads": self.threads,
            "notes": list(self.notes),
            "layers": [_row(row) for row in self.rows],
        }

    @property
    def peak_layer(self) -> str:
        """The layer that runs when the most activations are alive."""
        return self.schedule.operations[self.memory.at].layer if self.memory.at >= 0 else ""


def profile(
    model: Any,
    example: Any = None,
    *,
    latency: bool = False,
    threads: int = 1,
    seconds: float = 3.0,
    folded: bool = True,
    costs: Mapping[str, Callable[..., Cost]] | None = None,
    name: str | None = None,
) -> Profile:
    """The costs of a torch module called on `example`, or of a .goss or .onnx file.

    example: a tensor, a tuple of tensors, a dict of keyword arguments, or one shape such as (1, 3, 224, 224);
    for a file a shape, or {input name: shape}, fixes the free axes (default: 1)
    latency: also time it on this machine by the protocol of measure.latency, a torch module in torch and in
    ONNX Runtime
    folded: count a batch norm that follows its convolution as part of it
    costs: {"mylib::op": function of the call's arguments -> Cost} for operators of your own
    """
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        recorded = _file(path, example)
        made = of(recorded, name=name or path.name, folded=folded, file_bytes=path.stat().st_size, reuse=True)
        if latency:
            from . import timing

            return timing.file(made, path, threads=threads, seconds=seconds)
        return made
    from .dispatch import record_torch

    given = example_of(example)
    recorded = record_torch(model, given, costs=costs)
    made = of(recorded, name=name or type(model).__name__, folded=folded)
    if latency:
        from . import timing

        return timing.module(made, model, given, threads=threads, seconds=seconds)
    return made


def of(
    recorded: Recorded, *, name: str, folded: bool, file_bytes: int | None = None, reuse: bool = False
) -> Profile:
    """The profile of what a front end found."""
    schedule = fold_norms(recorded.schedule) if folded else recorded.schedule
    costs: dict[str, Cost] = {}
    calls: dict[str, int] = {}
    last: dict[str, tuple[tuple[int, ...], int]] = {}
    for operation in schedule.operations:
        costs[operation.layer] = costs.get(operation.layer, Cost()) + operation.cost
        calls[operation.layer] = calls.get(operation.layer, 0) + 1
        last[operation.layer] = (operation.output_shape, sum(schedule.sizes[id] for id in operation.writes))
    owned: dict[str, list[Weight]] = {}
    for weight in recorded.weights:
        owned.setdefault(weight.layer, []).append(weight)
    rows = []
    for layer in recorded.layers:
        held = owned.get(layer.name, [])
        shape, size = last.get(layer.name, ((), 0))
        rows.append(
            Row(
                name=layer.name,
                kind=layer.kind,
                calls=calls.get(layer.name, 0),
                params=sum(weight.numel for weight in held if weight.trained),
                buffers=sum(weight.numel for weight in held if not weight.trained),
                nonzero=_sum(weight.nonzero for weight in held if weight.trained),
                dense_bytes=sum(weight.dense_bytes for weight in held),
                stored_bytes=_sum(weight.stored_bytes for weight in held),
                cost=costs.get(layer.name, Cost()),
                output_shape=shape,
                output_bytes=size,
            )
        )
    kept = tuple(row for row in rows if row.calls or row.params or row.buffers)
    if not kept:
        raise MeasureError(
            f"{name}: nothing was executed and there are no weights. Call a model that computes."
        )
    return Profile(
        name=name,
        inputs=recorded.inputs,
        rows=kept,
        total=_join("total", list(kept)),
        uncounted=_uncounted(schedule),
        memory=liveness(schedule, reuse=reuse),
        schedule=schedule,
        norms_folded=folded and len(schedule.operations) < len(recorded.schedule.operations),
        file_bytes=file_bytes,
        notes=recorded.notes,
    )


def _file(path: Path, example: Any) -> Recorded:
    from .onnx import graph

    if not path.is_file():
        raise MeasureError(f"{path}: there is no such file to profile.")
    shapes = _shapes(path, example)
    if path.suffix == ".goss":
        return graph.record_goss(path, shapes)
    if path.suffix == ".onnx":
        return graph.record_onnx(path, shapes)
    raise MeasureError(f"{path}: expected a .goss or an .onnx file, or a torch module with an example.")


def _shapes(path: Path, example: Any) -> Mapping[str, tuple[int, ...]] | None:
    """{input: shape} from a mapping, an array, or one shape for the only input."""
    if example is None:
        return None
    if isinstance(example, Mapping):
        return {key: _shape(value) for key, value in example.items()}
    values = [example] if _is_shape(example) or hasattr(example, "shape") else list(example)
    from .onnx import graph

    names = graph.input_names(path)
    if len(values) != len(names):
        raise OptionError(
            f"{path}: {len(values)} shapes for {len(names)} inputs ({', '.join(names)}). Give one for each."
        )
    return {key: _shape(value) for key, value in zip(names, values, strict=True)}


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, or a shape itself."""
    return tuple(int(size) for size in getattr(value, "shape", value))


def example_of(example: Any) -> Any:
    """An example of zeros where a shape was given."""
    import torch

    if example is None:
        raise OptionError("profile: a torch module needs an example, such as torch.zeros(1, 3, 224, 224).")
    return torch.zeros(tuple(example)) if _is_shape(example) else example


def _is_shape(example: Any) -> bool:
    return (
        isinstance(example, (tuple, list))
        and bool(example)
        and all(isinstance(size, int) for size in example)
    )


def _uncounted(schedule: Schedule) -> tuple[Uncounted, ...]:
    found: dict[str, list[tuple[str, int]]] = {}
    for operation in schedule.operations:
        if not operation.counted:
            size = sum(schedule.sizes[id] for id in operation.writes)
            found.setdefault(operation.op, []).append((operation.layer, size))
    return tuple(
        Uncounted(
            op, len(calls), sum(size for _, size in calls), tuple(dict.fromkeys(layer for layer, _ in calls))
        )
        for op, calls in sorted(found.items())
    )


def _join(name: str, rows: list[Row]) -> Row:
    """Several layers as one."""
    cost = Cost()
    for row in rows:
        cost = cost + row.cost
    times = [row.latency_ms for row in rows if row.latency_ms is not None]
    return Row(
        name=name,
        kind=rows[0].kind if len(rows) == 1 else "",
        calls=sum(row.calls for row in rows),
        params=sum(row.params for row in rows),
        buffers=sum(row.buffers for row in rows),
        nonzero=_sum(row.nonzero for row in rows if row.params),
        dense_bytes=sum(row.dense_bytes for row in rows),
        stored_bytes=_sum(row.stored_bytes for row in rows),
        cost=cost,
        output_shape=rows[-1].output_shape,
        output_bytes=rows[-1].output_bytes,
        latency_ms=sum(times) if times else None,
    )


def _sum(values: Any) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _row(row: Row) -> dict[str, Any]:
    cost = row.cost
    return {
        "name": row.name,
        "kind": row.kind,
        "calls": row.calls,
        "params": row.params,
        "buffers": row.buffers,
        "nonzero": row.nonzero,
        "dense_bytes": row.dense_bytes,
        "stored_bytes": row.stored_bytes,
        "macs": cost.macs,
        "macs_nonzero": cost.macs_nonzero,
        "flops": cost.flops,
        "bias_adds": cost.bias_adds,
        "other_ops": dict(cost.other_ops),
        "adds": cost.adds,
        "shifts": cost.shifts,
        "bit_ops": cost.bit_ops,
        "weight_bytes": cost.weight_bytes,
        "input_bytes": cost.input_bytes,
        "output_bytes_moved": cost.output_bytes,
        "traffic_bytes": cost.traffic_bytes,
        "intensity_flop_per_byte": cost.intensity,
        "output_shape": list(row.output_shape),
        "output_bytes": row.output_bytes,
        "latency_ms": row.latency_ms,
    }
