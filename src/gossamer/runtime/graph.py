"""graph: what the runtime reads from an ONNX graph, and how coded weights are put back into it.

A .goss file holds a ModelProto without its coded initialisers. `with_initializers` writes it again with a
list of TensorProto messages at the end of its graph:

    external   TensorProto{dims, data_type, name, data_location: EXTERNAL}    the values come from elsewhere
    raw        TensorProto{dims, data_type, name, raw_data}                   a plain ONNX file

Raises: HeaderError when the graph is no ONNX model, or when it points to data outside the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import HeaderError
from . import protobuf as pb

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE_INITIALIZER = 1, 5, 15
NODE_INPUT, NODE_OUTPUT, NODE_OP, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_DIM, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW, TENSOR_EXTERNAL, TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
EXTERNAL = 1
WEIGHTS = "weights.bin"
DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "float16": 10, "float64": 11, "bfloat16": 16}
ITEMSIZE = {"float32": 4, "uint8": 1, "int8": 1, "int32": 4, "float16": 2, "float64": 8, "bfloat16": 2}
MAX_NESTING = 16


@dataclass(frozen=True)
class Node:
    """One node of the graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Initializer:
    """An initialiser that the graph uses and the file stores as a coded tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        """Bytes of its values in memory."""
        size = ITEMSIZE[self.dtype]
        for dim in self.shape:
            size *= dim
        return size

    def described(self) -> bytes:
        """The TensorProto without its values."""
        dims = b"".join(pb.integer(TENSOR_DIM, dim) for dim in self.shape)
        return (
            dims
            + pb.integer(TENSOR_TYPE, DATA_TYPES[self.dtype])
            + pb.message(TENSOR_NAME, self.name.encode())
        )

    def external(self, offset: int | None = None) -> bytes:
        """The TensorProto of an array that the session hands over, or that starts at `offset` of a file."""
        entries = {"location": WEIGHTS}
        if offset is not None:
            entries |= {"offset": str(offset), "length": str(self.size_bytes)}
        place = b"".join(
            pb.message(TENSOR_EXTERNAL, pb.message(1, key.encode()) + pb.message(2, value.encode()))
            for key, value in entries.items()
        )
        return self.described() + place + pb.integer(TENSOR_LOCATION, EXTERNAL)

    def raw_head(self) -> bytes:
        """The TensorProto up to its values, which must follow."""
        return self.described() + pb.start(TENSOR_RAW, self.size_bytes)


def split(model: bytes) -> tuple[bytes, memoryview]:
    """(every field of the ModelProto but the graph, the GraphProto)."""
    rest, graphs = bytearray(), []
    for number, value in pb.fields(model):
        if number == MODEL_GRAPH and not isinstance(value, int):
            graphs.append(value)
        else:
            rest += pb.integer(number, value) if isinstance(value, int) else pb.message(number, bytes(value))
    if len(graphs) != 1:
        raise HeaderError(f"graph: the model holds {len(graphs)} graphs, expected 1.")
    return bytes(rest), graphs[0]


def nodes(graph: memoryview) -> list[Node]:
    """The nodes of a GraphProto, in order (those of inner graphs are left out)."""
    found = []
    for value in _messages(graph, GRAPH_NODE):
        parts: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_OP: []}
        for number, item in pb.fields(value):
            if number in parts:
                parts[number].append(pb.text(item))
        found.append(Node("".join(parts[NODE_OP]), tuple(parts[NODE_INPUT]), tuple(parts[NODE_OUTPUT])))
    return found


def refuse_external(graph: memoryview, depth: int = 0) -> None:
    """HeaderError when a stored tensor points to another file: a .goss file holds all that it needs."""
    if depth > MAX_NESTING:
        raise HeaderError(f"graph: graphs lie more than {MAX_NESTING} deep.")
    tensors = list(_messages(graph, GRAPH_INITIALIZER))
    for sparse in _messages(graph, GRAPH_SPARSE_INITIALIZER):
        tensors += [*_messages(sparse, 1), *_messages(sparse, 2)]
    for node in _messages(graph, GRAPH_NODE):
        for attribute in _messages(node, NODE_ATTRIBUTE):
            tensors += [*_messages(attribute, ATTRIBUTE_TENSOR), *_messages(attribute, ATTRIBUTE_TENSORS)]
            for inner in [*_messages(attribute, ATTRIBUTE_GRAPH), *_messages(attribute, ATTRIBUTE_GRAPHS)]:
                refuse_external(inner, depth + 1)
    for tensor in tensors:
        if any(number in (TENSOR_EXTERNAL, TENSOR_LOCATION) for number, _ in pb.fields(tensor)):
            raise HeaderError("graph: a tensor points to data outside the file, which is not allowed.")


def _messages(data: memoryview, field: int) -> Iterator[memoryview]:
    for number, value in pb.fields(data):
        if number == field and not isinstance(value, int):
            yield value


def with_stubs(
    model: bytes, initializers: Sequence[Initializer], offsets: Sequence[int | None] | None = None
) -> bytes:
    """The model with every initializer declared; the values come from the session, or from a file."""
    rest, graph = split(model)
    places = offsets or [None] * len(initializers)
    stubs = b"".join(
        pb.message(GRAPH_INITIALIZER, item.external(place))
        for item, place in zip(initializers, places, strict=True)
    )
    return rest + pb.start(MODEL_GRAPH, len(graph) + len(stubs)) + bytes(graph) + stubs
