"""build: ONNX graphs written without the onnx package, for the operators of our library.

    node       one NodeProto                       model     a ModelProto of nodes, ports and initialisers
    opset      one OperatorSetIdProto

Field numbers are those of onnx.proto; attributes of integers that are not negative are enough here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from . import graph
from . import protobuf as pb
from .ports import Port

DOMAIN = "ai.gossamer"
IR_VERSION, OPSET = 8, 17  # ONNX Runtime 1.18 reads both
MODEL_IR, MODEL_OPSET = 1, 8
GRAPH_NAME, GRAPH_INPUT, GRAPH_OUTPUT = 2, 11, 12
NODE_NAME, NODE_DOMAIN = 3, 7
ATTRIBUTE_NAME, ATTRIBUTE_INTEGER, ATTRIBUTE_INTEGERS, ATTRIBUTE_KIND = 1, 3, 8, 20
INTEGER, INTEGERS = 2, 7  # AttributeProto.INT, INTS


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    name: str = "",
    domain: str = "",
    integers: Mapping[str, int] | None = None,
    lists: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """A NodeProto; `integers` and `lists` of integers are its attributes."""
    parts = [pb.message(graph.NODE_INPUT, item.encode()) for item in inputs]
    parts += [pb.message(graph.NODE_OUTPUT, item.encode()) for item in outputs]
    parts += [pb.message(NODE_NAME, name.encode()), pb.message(graph.NODE_OP, op.encode())]
    for key, value in (integers or {}).items():
        attribute = pb.message(ATTRIBUTE_NAME, key.encode()) + pb.integer(ATTRIBUTE_INTEGER, value)
        parts.append(pb.message(graph.NODE_ATTRIBUTE, attribute + pb.integer(ATTRIBUTE_KIND, INTEGER)))
    for key, values in (lists or {}).items():
        attribute = pb.message(ATTRIBUTE_NAME, key.encode())
        attribute += b"".join(pb.integer(ATTRIBUTE_INTEGERS, value) for value in values)
        parts.append(pb.message(graph.NODE_ATTRIBUTE, attribute + pb.integer(ATTRIBUTE_KIND, INTEGERS)))
    return b"".join(parts) + (pb.message(NODE_DOMAIN, domain.encode()) if domain else b"")


def opset(domain: str, version: int) -> bytes:
    """One entry of a model's list of operator sets."""
    return pb.message(MODEL_OPSET, pb.message(1, domain.encode()) + pb.integer(2, version))


def model(
    nodes: Iterable[bytes],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    initializers: Mapping[str, np.ndarray],
) -> bytes:
    """A ModelProto that holds its initialisers as raw values."""
    body = b"".join(pb.message(graph.GRAPH_NODE, item) for item in nodes) + pb.message(GRAPH_NAME, b"graph")
    for name, array in initializers.items():
        stub = graph.Initializer(name, array.shape, str(array.dtype))
        body += pb.message(graph.GRAPH_INITIALIZER, stub.raw_head() + np.ascontiguousarray(array).tobytes())
    body += b"".join(pb.message(GRAPH_INPUT, _described(port)) for port in inputs)
    body += b"".join(pb.message(GRAPH_OUTPUT, _described(port)) for port in outputs)
    return (
        pb.integer(MODEL_IR, IR_VERSION)
        + opset("", OPSET)
        + opset(DOMAIN, 1)
        + pb.message(graph.MODEL_GRAPH, body)
    )


def _described(port: Port) -> bytes:
    """A ValueInfoProto of a tensor."""
    dims = b"".join(
        pb.message(1, pb.integer(1, size) if isinstance(size, int) else pb.message(2, size.encode()))
        for size in port.shape
    )
    tensor = pb.integer(1, graph.DATA_TYPES[port.dtype]) + pb.message(2, dims)
    return pb.message(1, port.name.encode()) + pb.message(2, pb.message(1, tensor))
