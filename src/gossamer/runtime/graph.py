"""graph: what the runtime reads from an ONNX graph, and how coded weights are put back into it.

A .goss file holds a ModelProto without its coded initialisers. `with_initializers` writes it again with a
list of TensorProto messages at the end of its graph:

    external   TensorProto{dims, data_type, name, data_location: EXTERNAL}    the values come from elsewhere
    raw        TensorProto{dims, data_type, name, raw_data}                   a plain ONNX file

Raises: HeaderError when the graph is no ONNX model, or when it points to data outside the file.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import HeaderError
from . import protobuf as pb

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE_INITIALIZER = 1, 5, 15
GRAPH_INPUT, GRAPH_OUTPUT = 11, 12
MODEL_OPSET = 8
NODE_INPUT, NODE_OUTPUT, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INTEGER, ATTRIBUTE_TEXT, ATTRIBUTE_INTEGERS = 1, 2, 3, 4, 8
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_DIM, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_INTEGERS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 5, 8, 9
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
EXTERNAL = 1
WEIGHTS = "weights.bin"
DATA_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int32": 6,
    "int64": 7,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}
READ = {
    1: "<f4",
    2: "u1",
    3: "i1",
    6: "<i4",
    7: "<i8",
}  # constants that are looked at, by their number in DATA_TYPES
ITEMSIZE = {name: 2 if name == "bfloat16" else np.dtype(name).itemsize for name in DATA_TYPES}
MAX_NESTING = 16


@dataclass(frozen=True)
class Node:
    """One node of the graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""


@dataclass(frozen=True)
class Attributes:
    """What a node sets: numbers, lists of integers and texts by name; other kinds are left out."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    lists: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


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
    return [_node(value) for value in _messages(graph, GRAPH_NODE)]


def _node(value: memoryview) -> Node:
    parts: dict[int, list[str]] = {NODE_INPUT: [], NODE_OUTPUT: [], NODE_OP: [], NODE_DOMAIN: []}
    for number, item in pb.fields(value):
        if number in parts:
            parts[number].append(pb.text(item))
    inputs, outputs = tuple(parts[NODE_INPUT]), tuple(parts[NODE_OUTPUT])
    return Node("".join(parts[NODE_OP]), inputs, outputs, "".join(parts[NODE_DOMAIN]))


def nodes_with_attributes(graph: memoryview) -> Iterator[tuple[Node, Attributes]]:
    """Each node with its attributes."""
    for value in _messages(graph, GRAPH_NODE):
        numbers: dict[str, float] = {}
        lists: dict[str, tuple[int, ...]] = {}
        texts: dict[str, str] = {}
        for attribute in _messages(value, NODE_ATTRIBUTE):
            name, integers = "", list[int]()
            number: float | None = None
            words: str | None = None
            for part, item in pb.fields(attribute):
                if part == ATTRIBUTE_NAME:
                    name = pb.text(item)
                elif part == ATTRIBUTE_INTEGER and isinstance(item, int):
                    number = float(item)
                elif part == ATTRIBUTE_FLOAT and not isinstance(item, int) and len(item) == 4:
                    number = struct.unpack("<f", item)[0]
                elif part == ATTRIBUTE_TEXT:
                    words = pb.text(item)
                elif part == ATTRIBUTE_INTEGERS:
                    integers += [item] if isinstance(item, int) else pb.varints(item)
            if number is not None:
                numbers[name] = number
            if words is not None:
                texts[name] = words
            if integers:
                lists[name] = tuple(one - 2**64 if one >= 2**63 else one for one in integers)
        yield _node(value), Attributes(numbers, lists, texts)


def used_names(graph: memoryview, depth: int = 0) -> Iterator[str]:
    """Every name that a node of the graph or of a graph within it reads, and the graph's own outputs."""
    if depth > MAX_NESTING:
        raise HeaderError(f"graph: graphs lie more than {MAX_NESTING} deep.")
    for value in _messages(graph, GRAPH_NODE):
        yield from _read_by(value, depth)
    for output in _messages(graph, GRAPH_OUTPUT):
        yield from (pb.text(item) for number, item in pb.fields(output) if number == 1)


def _read_by(node: memoryview, depth: int = 0) -> Iterator[str]:
    yield from _node(node).inputs
    for attribute in _messages(node, NODE_ATTRIBUTE):
        for inner in [*_messages(attribute, ATTRIBUTE_GRAPH), *_messages(attribute, ATTRIBUTE_GRAPHS)]:
            yield from used_names(inner, depth + 1)


def with_nodes(
    graph: memoryview,
    replaced: Mapping[int, Sequence[bytes]],
    after: Mapping[int, Sequence[bytes]] | None = None,
) -> bytes:
    """The GraphProto with each of these nodes (by index) replaced by others, or by none, and with nodes `after` some."""
    parts, index = [], 0
    for number, value in pb.fields(graph):
        if number == GRAPH_NODE and not isinstance(value, int):
            made = [*replaced.get(index, (bytes(value),)), *(after or {}).get(index, ())]
            parts += [pb.message(number, item) for item in made]
            index += 1
        else:
            parts.append(
                pb.integer(number, value) if isinstance(value, int) else pb.message(number, bytes(value))
            )
    return b"".join(parts)


def without_unread(graph: memoryview) -> bytes:
    """The GraphProto without the nodes of which nothing is read."""
    read = Counter(used_names(graph))
    gone: dict[int, Sequence[bytes]] = {}
    for index, value in reversed(list(enumerate(_messages(graph, GRAPH_NODE)))):
        if not any(read[name] for name in _node(value).outputs):
            gone[index] = ()
            read.subtract(_read_by(value))
    return with_nodes(graph, gone) if gone else bytes(graph)


def constants(graph: memoryview, most: int = 2**16) -> dict[str, np.ndarray]:
    """The initialisers inside a GraphProto of float32, int64 and integers of 8 and 32 bits, of at most `most` values."""
    found = {}
    for tensor in _messages(graph, GRAPH_INITIALIZER):
        dims, name, kind, integers = list[int](), "", 0, list[int]()
        parts = list[bytes]()
        for number, value in pb.fields(tensor):
            if number == TENSOR_DIM:
                dims += [value] if isinstance(value, int) else pb.varints(value)
            elif number == TENSOR_TYPE and isinstance(value, int):
                kind = value
            elif number == TENSOR_NAME:
                name = pb.text(value)
            elif number == TENSOR_INTEGERS:
                integers += [value] if isinstance(value, int) else pb.varints(value)
            elif number in (TENSOR_RAW, TENSOR_FLOATS) and not isinstance(value, int):
                parts.append(bytes(value))
        dtype, count = READ.get(kind), math.prod(dims)
        if dtype is None or count > most:
            continue
        data = (
            b"".join(parts) or np.array(integers, "<u8").astype(dtype).tobytes()
        )  # negative ones are 2^64 less
        if len(data) == count * np.dtype(dtype).itemsize:
            found[name] = np.frombuffer(data, dtype).reshape(dims)
    return found


def imports(model: bytes, domain: str) -> bool:
    """True when the ModelProto uses operators of this domain."""
    for entry in _messages(memoryview(model), MODEL_OPSET):
        if any(number == 1 and pb.text(item) == domain for number, item in pb.fields(entry)):
            return True
    return False


def input_shapes(graph: memoryview) -> dict[str, tuple[int | None, ...]]:
    """The sizes of every input of a GraphProto; None for one that is not fixed."""
    found = {}
    for port in _messages(graph, GRAPH_INPUT):
        name = "".join(pb.text(item) for number, item in pb.fields(port) if number == 1)
        path = [port]
        for level in (2, 1, 2):  # type, tensor, shape
            path = [inner for outer in path for inner in _messages(outer, level)]
        dims = [dim for shape in path for dim in _messages(shape, 1)]
        sizes = [[value for number, value in pb.fields(dim) if number == 1] for dim in dims]
        found[name] = tuple(
            size[0] if len(size) == 1 and isinstance(size[0], int) else None for size in sizes
        )
    return found


def fixed_batch(model: bytes) -> int | None:
    """The first size of every input, when the graph fixes it and all agree; else None."""
    _, graph = split(model)
    firsts = {shape[0] if shape else None for shape in input_shapes(graph).values()}
    return firsts.pop() if len(firsts) == 1 else None


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
