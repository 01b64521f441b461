"""graph: the nodes of an ONNX graph as plain Python, constants as torch tensors, and what is known of its values."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto
from torch import Tensor

from .dtypes import tensor_of
from .file import light, opset_of

SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Constant:
    """A tensor known when the network is loaded.

    label: the initializer it comes from, for naming; weight: whether it may be trained; source: the initializer whose
    contents it has, and whether they are transposed (two constants of one source share their memory).
    """

    tensor: Tensor
    label: str = ""
    weight: bool = False
    source: tuple[str, bool] | None = None


@dataclass(frozen=True)
class Node:
    """An operator: names of values in and out ("" is left out), attributes decoded, the module it was traced in."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    scope: str = ""

    def changed(self, **changes: Any) -> Node:
        return replace(self, **changes)


@dataclass
class Graph:
    """Nodes in an order that can be run; `constants` are filled while they are folded.

    shapes, types: the sizes (None: free) and the ONNX element type of values, where they can be inferred; shape: that of
    the only input, if it holds floats and all sizes behind the batch are fixed.
    """

    nodes: list[Node]
    constants: dict[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    shape: tuple[int, ...] | None = (
        None  # of the only input, if it holds floats and has known sizes behind the batch
    )

    def rank(self, value: str) -> int:
        """The number of axes of a value; 0 also where it is not known."""
        if value in self.constants:
            return self.constants[value].tensor.ndim
        return len(self.shapes.get(value, ()))

    def readers(self) -> dict[str, list[Node]]:
        """{value: the nodes that read it}, those in branches included."""
        found: dict[str, list[Node]] = {}
        for node in everywhere(self.nodes):
            for value in node.inputs:
                found.setdefault(value, []).append(node)
        return found


def everywhere(nodes: Iterable[Node]) -> Iterable[Node]:
    """Nodes with those of their branches."""
    for node in nodes:
        yield node
        for inner in node.attributes.values():
            if isinstance(inner, Graph):
                yield from everywhere(inner.nodes)


def decode(model: ModelProto) -> Graph:
    """The graph of a model that was read and checked."""
    constants = {}
    for proto in model.graph.initializer:
        tensor = tensor_of(proto)
        trains = tensor.is_floating_point() and tensor.numel() > 1
        constants[proto.name] = Constant(tensor, proto.name, trains, (proto.name, False))
    graph = _graph(model.graph, constants, opset_of(model))
    graph.shapes, graph.types = _inferred(model)
    graph.shape = _shape([port for port in model.graph.input if port.name not in constants])
    return graph


def _shape(ports: list[onnx.ValueInfoProto]) -> tuple[int, ...] | None:
    kind = ports[0].type.tensor_type if len(ports) == 1 else None
    if kind is None or kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) < 2:
        return None
    batch, *rest = (dim.dim_value for dim in kind.shape.dim)
    return (batch or 1, *rest) if all(rest) else None


def _graph(proto: GraphProto, constants: dict[str, Constant], opset: int) -> Graph:
    return Graph(
        [_node(node, opset) for node in proto.node],
        constants,
        tuple(port.name for port in proto.input if port.name not in constants),
        tuple(port.name for port in proto.output),
        opset,
    )


def _node(proto: NodeProto, opset: int) -> Node:
    return Node(
        proto.op_type,
        tuple(proto.input),
        tuple(proto.output),
        {attribute.name: _attribute(attribute, opset) for attribute in proto.attribute},
        proto.name,
        _scope(proto),
    )


def _attribute(proto: AttributeProto, opset: int) -> Any:
    if proto.type == AttributeProto.GRAPH:
        held = {each.name: Constant(tensor_of(each), each.name) for each in proto.g.initializer}
        return _graph(proto.g, held, opset)
    if proto.type == AttributeProto.TENSOR:
        return tensor_of(proto.t)
    value = onnx.helper.get_attribute_value(proto)
    single = isinstance(value, (bytes, int, float))
    texts = [
        v.decode(errors="replace") if isinstance(v, bytes) else v for v in ([value] if single else value)
    ]
    return texts[0] if single else tuple(texts)


def _scope(proto: NodeProto) -> str:
    """The module that the node was traced in, where the exporter wrote it down."""
    written = next((each.value for each in proto.metadata_props if each.key == SCOPES), "")
    try:
        path = ast.literal_eval(written)[-2]
    except (ValueError, SyntaxError, IndexError, TypeError):
        return ""
    return path if isinstance(path, str) and not path.startswith("_") else ""


def _inferred(model: ModelProto) -> tuple[dict[str, tuple[int | None, ...]], dict[str, int]]:
    """({value: its sizes, None where they are free}, {value: its element type}), where they can be inferred."""
    try:
        graph = onnx.shape_inference.infer_shapes(light(model)).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = model.graph
    ports = {port.name: port.type.tensor_type for port in (*graph.value_info, *graph.input, *graph.output)}
    shapes = {
        name: tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
        for name, kind in ports.items()
        if kind.HasField("shape")
    }
    return shapes, {name: kind.elem_type for name, kind in ports.items() if kind.elem_type}
