"""graph: an ONNX or packed file -> the schedule it executes, one operation for each node.

    constants   what is known when the file is opened is no operation, see constants
    views       Reshape, Squeeze, Flatten, ... hand the same memory on and move nothing
    merged      a constant vector added to a product is its bias, see merge
    inside      operators in If, Loop and Scan are not counted, because values decide what runs; a note lists them

Layers are named after the module of the largest weight they read ("conv1" of "conv1.weight"), else after their
node; their kind is the operator.
Raises: OptionError for input shapes that do not fit; MeasureError for a damaged file; see file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

from onnx import NodeProto

from ... import artifact
from ...cost import Cost
from ...errors import MeasureError
from ..schedule import Layer, Operation, Recorded, Schedule, Weight
from . import inner, ops
from .call import Call
from .constants import Constants, used
from .file import Model, Value, attributes, open_goss, open_onnx, said
from .inner import subgraphs
from .merge import Draft, merge, vectors
from .products import FOLDING, RECURRENT, WEIGHTED
from .shapes import fix_inputs_, infer
from .weights import MODULE, Weights


def record_onnx(model: bytes | str | Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Recorded:
    """Count an .onnx file or its bytes; `shapes` fixes free axes of inputs, which are 1 otherwise."""
    with _names_of("the model" if isinstance(model, bytes) else model):
        return _record(open_onnx(model), shapes)


def record_goss(path: artifact.reader.Source, shapes: Mapping[str, Sequence[int]] | None = None) -> Recorded:
    """Count a packed file; each weight knows the bytes it takes in the file (payload and checksums)."""
    with artifact.Reader(path) as reader, _names_of("the file" if isinstance(path, bytes) else path):
        return _record(open_goss(reader, path), shapes)


def input_names(path: str | Path) -> tuple[str, ...]:
    """The inputs of an .onnx or .goss file, in the file's order."""
    with _names_of(path):
        if Path(path).suffix != ".goss":
            return tuple(item.name for item in open_onnx(path).inputs)
        with artifact.Reader(path) as reader:
            return tuple(item.name for item in open_goss(reader, path).inputs)


@contextmanager
def _names_of(place: object) -> Iterator[None]:
    """A name that is no text is damage; protobuf only notices when the name is read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise MeasureError(
            f"{place}: a name in it is no text ({said(error)}). The file is damaged."
        ) from error


def _record(model: Model, shapes: Mapping[str, Sequence[int]] | None) -> Recorded:
    inputs, assumed = fix_inputs_(model, shapes)
    values, learned = infer(model, inputs)
    recorder = _Recorder(model, values, tuple(inputs))
    for node in model.proto.graph.node:
        recorder.take(node)
    outputs = recorder.outputs([item.name for item in model.proto.graph.output])
    drafts = merge(recorder.drafts, outputs)
    operations = tuple(draft.operation for draft in drafts)
    layers = {operation.layer: operation.op for operation in reversed(operations)}
    layers = {operation.layer: layers[operation.layer] for operation in operations}
    rows = list(_rows(recorder.weights, drafts, layers))
    return Recorded(
        Schedule(operations, recorder.sizes, tuple(range(len(inputs))), outputs),
        tuple(Layer(name, kind) for name, kind in layers.items()),
        tuple(rows),
        {name: (value.dtype, value.shape) for name, value in inputs.items()},
        (*assumed, *learned, *recorder.notes),
    )


def _rows(weights: Weights, drafts: Iterable[Draft], layers: dict[str, str]) -> Iterator[Weight]:
    """Each weight once, with the first layer that reads it; then those that nothing reads."""
    read: dict[str, str] = {}
    for draft in drafts:
        for name in draft.held:
            read.setdefault(name, draft.operation.layer)
    for name in weights.unread(read):
        whole = weights.name(name)
        read[name] = whole.rpartition(".")[0] if MODULE.fullmatch(whole) else whole
        layers.setdefault(read[name], "")
    for name, layer in read.items():
        yield weights.record(name, layer)


class _Recorder:
    """Walks over the nodes in their order."""

    def __init__(self, model: Model, values: Mapping[str, Value], inputs: Sequence[str]) -> None:
        self.drafts: list[Draft] = []
        self.notes: list[str] = []
        self.weights = Weights(model)
        self._model = model
        self._values = values
        self._ids = {name: at for at, name in enumerate(inputs)}
        self.sizes = {at: values[name].bytes for name, at in self._ids.items()}
        self._constants = Constants(model, values, self.weights)

    def outputs(self, names: Iterable[str]) -> tuple[int, ...]:
        """The activations the model returns; one that is constant takes no memory and is noted."""
        found = []
        for name in names:
            if name in self._constants:
                self.notes.append(f"output {name!r} does not depend on the inputs; it was not counted")
            else:
                found.append(self._id(name, "the graph's list of outputs"))
        return tuple(dict.fromkeys(found))

    def take(self, node: NodeProto) -> None:
        """Record one node."""
        if self._constants.take(node):
            return
        label = node.name
        op = ops.name(node.op_type, node.domain)
        result = next(filter(None, node.output), None)
        if result is None:
            raise MeasureError(
                f"{self._model.where}: node {label} ({op}) has no output. The file is damaged."
            )
        given = {}
        if subgraphs(node):
            given = {f"{label}/{name}": item for name, item in inner.initializers(node, self._model).items()}
            self.notes.append(
                f"{label} ({op}) is not counted: values decide which operators inside it run, and how often "
                f"({inner.described(node)})"
            )
        for name, initializer in given.items():
            self.weights.add(name, initializer)
        names = used(node)
        fixed = [self._constants[name] for name in names if name in self._constants]
        held = [weight for constant in fixed for weight in constant.weights]
        held = list(dict.fromkeys([*held, *filter(self.weights.holds, given)]))
        reads = dict.fromkeys(self._id(name, label) for name in names if name not in self._constants)
        writes = self._writes(node, op)
        cost = self._cost(node, op)
        shape = self._values[result].shape if result in self._values else ()
        order = sorted(reads, key=lambda tensor: self.sizes[tensor] != self.sizes[writes[0]])
        operation = Operation(
            op,
            label if given else self._layer(held, label),
            tuple(order if op in ops.IN_PLACE_CAPABLE else reads),
            writes,
            (cost or Cost()).moving(**self._moved(node, op)),
            tuple(self.weights.name(name) for name in held),
            counted=cost is not None,
            elementwise=op in ops.IN_PLACE_CAPABLE,
            folds=op == "BatchNormalization" and not attributes(node).get("training_mode", 0),
            takes_fold=op in FOLDING and self._is_weighted(node, op),
            output_shape=shape,
            node=label,
        )
        axis = None
        if operation.takes_fold and shape:
            axis = 1 if op.startswith("Conv") else len(shape) - 1
        self.drafts.append(Draft(operation, tuple(held), axis, self._vectors(node, op, shape)))

    def _id(self, name: str, reader: str) -> int:
        if name not in self._ids:
            raise MeasureError(
                f"{self._model.where}: {reader} reads {name!r}, which no node before it writes. The file is damaged, "
                "or its nodes are out of order."
            )
        return self._ids[name]

    def _writes(self, node: NodeProto, op: str) -> tuple[int, ...]:
        """Numbers for the results; a view has that of its source."""
        source = self._ids.get(node.input[0]) if op in ops.VIEWS and node.input else None
        for at, name in enumerate(node.output):
            if not name:
                continue
            if at == 0 and source is not None:
                self._ids[name] = source
            else:
                self._ids[name] = len(self.sizes)
                self.sizes[len(self.sizes)] = self._values[name].bytes if name in self._values else 0
        return tuple(self._ids[name] for name in node.output if name)

    def _cost(self, node: NodeProto, op: str) -> Cost | None:
        """Operations of the node; None where no rule knows them or a shape is unknown."""
        names = [name for name in (*node.input, *node.output[:1]) if name]
        if subgraphs(node) or any(name not in self._values for name in names):
            return None
        shapes = [self._values[name].shape if name in self._values else None for name in node.input]
        results = [self._values[name].shape if name in self._values else None for name in node.output]
        try:
            cost = ops.cost(Call(op, shapes, results, attributes(node)))
        except (ArithmeticError, LookupError, TypeError, ValueError, MeasureError) as error:
            raise MeasureError(
                f"{self._model.where}: node {node.name} ({op}) cannot be counted on inputs {shapes}: {said(error)}. "
                "Check the file with onnx.checker."
            ) from error
        return cost and replace(cost, macs_nonzero=self._nonzero_macs(node, op, cost))

    def _nonzero_macs(self, node: NodeProto, op: str, cost: Cost) -> int:
        """The part of the MACs whose weight is not zero, where one stored weight is the factor."""
        places = (1, 2) if op in RECURRENT else WEIGHTED.get(op, ())
        names = [node.input[at] for at in places if at < len(node.input) and node.input[at]]
        factors = [self._constants[name] for name in names if name in self._constants]
        matrices = dict.fromkeys(
            name for factor in factors for name in factor.weights if self.weights.is_matrix(name)
        )
        if not matrices or not all(factor.handed_on for factor in factors):
            return cost.macs
        if len(factors) > 1 and op not in RECURRENT:
            return cost.macs
        counts = [self.weights.nonzero(name) for name in matrices]
        numel = sum(prod(self.weights.shape(name)) for name in matrices)
        known = [count for count in counts if count is not None]
        return cost.macs * sum(known) // numel if numel and len(known) == len(counts) else cost.macs

    def _moved(self, node: NodeProto, op: str) -> dict[str, int]:
        """Bytes of weights, inputs and outputs; a view moves none, a look-up reads what it returns."""
        results = sum(self._values[name].bytes for name in node.output if name in self._values)
        if op in ops.VIEWS and node.input[0] in self._ids:
            return {}
        moved = {"weights": 0, "inputs": 0, "outputs": results}
        for name in used(node):
            fixed = name in self._constants
            size = self._values[name].bytes if name in self._values else 0
            size = self._constants[name].bytes if fixed else size
            if op in ops.LOOKUPS and name == node.input[0]:
                size = min(size, results)
            moved["weights" if fixed else "inputs"] += size
        return moved

    def _layer(self, held: Sequence[str], label: str) -> str:
        """The module of the largest weight, else the node itself."""
        modules = [name for name in held if MODULE.fullmatch(self.weights.name(name))]
        if not modules:
            return label
        largest = max(modules, key=lambda name: prod(self.weights.shape(name)))
        return self.weights.name(largest).rpartition(".")[0]

    def _is_weighted(self, node: NodeProto, op: str) -> bool:
        names = [node.input[at] for at in WEIGHTED[op] if at < len(node.input)]
        return any(name in self._constants for name in names)

    def _vectors(self, node: NodeProto, op: str, shape: tuple[int, ...]) -> frozenset[int]:
        """The axes along which a sum or product with a stored constant applies a vector."""
        fixed = [name for name in node.input if name in self._constants and self._constants[name].weights]
        if op not in ("Add", "Mul") or len(fixed) != 1 or not shape or fixed[0] not in self._values:
            return frozenset()
        return vectors(self._values[fixed[0]].shape, shape)
