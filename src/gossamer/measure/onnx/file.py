"""file: an ONNX graph without its large initialisers, which stay where they are until they are asked for.

    .onnx   bytes, or a file with or without external data          .goss   the graph, and coded tensors apart

Tensors of Constant nodes become initialisers and local functions are written out, so that one kind of node and
one kind of weight remain. Initialisers of at most SMALL elements stay in the graph (shapes, axes, scales: shape
inference reads them); the others are declared as inputs, so that a graph of any size fits into one protobuf.
Values are read one initialiser at a time.
Raises: MeasureError for bytes that are no ONNX model, and for external data that is missing or damaged; the
ArtifactErrors of the reader for a packed file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper, inliner

from ... import artifact
from ...errors import MeasureError
from ...runtime import graph, weights

SMALL = 1024  # elements
STANDARD = ("", "ai.onnx")
_NARROW = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
_NUMBERS = {
    "value_int": TensorProto.INT64,
    "value_ints": TensorProto.INT64,
    "value_float": TensorProto.FLOAT,
    "value_floats": TensorProto.FLOAT,
}


@dataclass(frozen=True)
class Value:
    """Shape and type of one tensor."""

    shape: tuple[int, ...]
    elem_type: int  # of TensorProto.DataType

    def __post_init__(self) -> None:
        """MeasureError unless ONNX has this type."""
        if self.elem_type not in TensorProto.DataType.values() or self.elem_type == TensorProto.UNDEFINED:
            raise MeasureError(
                f"a tensor of shape {list(self.shape)} has the type number {self.elem_type}, which is none of ONNX's. "
                "The file is damaged, or the onnx package too old."
            )

    @property
    def dtype(self) -> str:
        """The name numpy gives the type ("float32"); "string" for text."""
        if self.elem_type == TensorProto.STRING:
            return "string"
        return str(helper.tensor_dtype_to_np_dtype(self.elem_type))

    @property
    def bytes(self) -> int:
        """Bytes in memory; those of text depend on the text and count as none."""
        if self.elem_type == TensorProto.STRING:
            return 0
        name = TensorProto.DataType.Name(self.elem_type)
        bits = _NARROW.get(name) or 8 * helper.tensor_dtype_to_np_dtype(self.elem_type).itemsize
        return -(-prod(self.shape) * bits // 8)


@dataclass(frozen=True)
class Initializer:
    """A stored tensor; `read` returns its values (of a sparse one those that are stored)."""

    name: str  # the model's own: "conv1.weight"
    value: Value
    read: Callable[[], np.ndarray]
    stored_bytes: int | None  # None: a part of a packed file's graph


@dataclass
class Model:
    """A graph, its initialisers by the graph's names, and what is needed to run it with all of them."""

    proto: ModelProto
    initializers: dict[str, Initializer]
    where: str  # for errors
    folder: Path | None = None
    held: Mapping[str, TensorProto] = field(default_factory=dict)
    sparse: tuple[Any, ...] = ()
    packed: artifact.reader.Source | None = None
    coded: frozenset[str] = frozenset()  # initialisers that a packed file holds beside its graph

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """What a caller must hand in."""
        return [port for port in self.proto.graph.input if port.name not in self.initializers]


def open_onnx(source: bytes | str | Path) -> Model:
    """The model of an .onnx file, or of its bytes."""
    if isinstance(source, bytes):
        return _model(source, "the model")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeasureError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return _model(data, str(path), folder=path.parent)


def open_goss(reader: artifact.Reader, source: artifact.reader.Source) -> Model:
    """The model of an open packed file; `source` is what it was opened from."""
    where = "the file" if isinstance(source, bytes | bytearray | memoryview) else str(source)
    _, body = graph.split(reader.graph)
    graph.refuse_external(body)
    sizes = {row.name: row.size_bytes for row in artifact.inspect(source).tensors}
    coded = {}
    for name, stub in zip(reader.names, weights.initializers(reader), strict=True):
        value = Value(stub.shape, graph.DATA_TYPES[stub.dtype])
        coded[stub.name] = Initializer(name, value, partial(_decoded, reader, name), sizes[name])
    return _model(reader.graph, where, packed=source, coded=coded)


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values, text decoded."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return found


def initializer(
    name: str, tensor: TensorProto, folder: Path | None, where: str, *, in_graph: bool
) -> Initializer:
    """A tensor of a graph; `in_graph` where that graph is part of a packed file."""
    value = Value(tuple(tensor.dims), tensor.data_type)
    read = partial(_values, tensor, folder, where)
    return Initializer(name, value, read, None if in_graph else value.bytes)


def loaded(tensor: TensorProto, folder: Path | None, where: str) -> TensorProto:
    """The tensor with its values inside: itself, or a copy of one whose values lie in another file."""
    if not external_data_helper.uses_external_data(tensor):
        return tensor
    if folder is None:
        raise MeasureError(
            f"{where}: initializer {tensor.name!r} lies in another file, and bytes have no folder. Give the path."
        )
    copy = TensorProto()
    copy.CopyFrom(tensor)
    try:
        external_data_helper.load_external_data_for_tensor(copy, str(folder))
    except Exception as error:  # a missing file, a wrong offset, a path outside the folder: no common class
        raise MeasureError(
            f"{where}: external data of initializer {tensor.name!r} cannot be read ({said(error)}). Keep the data "
            "file beside the model."
        ) from error
    copy.data_location = TensorProto.DEFAULT
    del copy.external_data[:]
    return copy


def said(error: BaseException) -> str:
    """The message of an error on one line, cut to what helps."""
    return " ".join(str(error).split())[:200]


def _model(
    data: bytes,
    where: str,
    *,
    folder: Path | None = None,
    packed: artifact.reader.Source | None = None,
    coded: Mapping[str, Initializer] | None = None,
) -> Model:
    """Split a ModelProto into a small one and its initialisers; `coded` are those that lie elsewhere."""
    full = _parsed(data, where)
    held = dict(_tensors(full))
    sparse = tuple(full.graph.sparse_initializer)
    initializers = dict(coded or {})
    for name, tensor in held.items():
        initializers[name] = initializer(name, tensor, folder, where, in_graph=packed is not None)
    for item in sparse:
        value = Value(tuple(item.dims), item.values.data_type)
        stored = sum(Value(tuple(t.dims), t.data_type).bytes for t in (item.values, item.indices))
        read = partial(_values, item.values, folder, where)
        initializers[item.values.name] = Initializer(item.values.name, value, read, stored)
    small = ModelProto(ir_version=full.ir_version, opset_import=full.opset_import)
    body = small.graph
    body.name = full.graph.name
    for at, node in enumerate(full.graph.node):
        if _constant(node) is None:
            body.node.append(node)
            body.node[-1].name = node.name or f"{node.op_type}_{at}"  # as ONNX Runtime calls it
    body.input.extend(port for port in full.graph.input if port.name not in initializers)
    body.output.extend(full.graph.output)
    body.value_info.extend(full.graph.value_info)
    for name, item in initializers.items():
        value = item.value
        if name in held and prod(value.shape) <= SMALL:
            body.initializer.append(loaded(held[name], folder, where))
            body.initializer[-1].name = name
        else:
            body.input.append(helper.make_tensor_value_info(name, value.elem_type, value.shape))
    return Model(small, initializers, where, folder, held, sparse, packed, frozenset(coded or ()))


def _parsed(data: bytes, where: str) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own error, whose class has moved between versions
        raise MeasureError(
            f"{where}: its bytes are no ONNX model, or are damaged ({said(error)}). Expected a file that "
            "onnx.load reads."
        ) from error
    if not model.graph.node and not model.graph.output:
        raise MeasureError(f"{where}: holds no graph; expected an ONNX model with at least one node.")
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise MeasureError(f"{where}: its local functions cannot be written out ({said(error)}).") from error


def _tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """(name, tensor) of every initialiser and of every Constant node."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        tensor = _constant(node)
        if tensor is not None:
            yield node.output[0], tensor


def _constant(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node; None for other nodes, and for text and sparse constants."""
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1:
        return None
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor: TensorProto = attribute.t
        return tensor
    if attribute.name not in _NUMBERS:
        return None
    value = helper.get_attribute_value(attribute)
    many = attribute.name.endswith("s")
    return helper.make_tensor(
        node.output[0], _NUMBERS[attribute.name], [len(value)] if many else [], value if many else [value]
    )


def _values(tensor: TensorProto, folder: Path | None, where: str) -> np.ndarray:
    try:
        return np.asarray(onnx.numpy_helper.to_array(loaded(tensor, folder, where)))
    except (ValueError, TypeError) as error:
        raise MeasureError(
            f"{where}: initializer {tensor.name!r} of shape {list(tensor.dims)} is damaged ({said(error)})."
        ) from error


def _decoded(reader: artifact.Reader, name: str) -> np.ndarray:
    """The values of a coded tensor; bfloat16 arrives as bits, of which the sign must not count."""
    tensor = reader.tensor(name)
    array = artifact.rebuild(tensor)
    return array & np.uint16(0x7FFF) if tensor.dtype == "bfloat16" else array
