"""strip: an ONNX graph without anything that is not needed to run it.

Names of nodes, notes, source lines and inferred shapes go, values get the shortest names, attributes that
say the default are left out, and the weights that are stored apart leave the graph (`w0`, `w1`, ... in
order of use).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

import onnx
import onnx_ir as ir

from .match import Weight
from .trace import BATCH

_IMPLIED = {
    "Conv": {"pads": 0, "strides": 1, "dilations": 1},
    "ConvTranspose": {"pads": 0, "strides": 1, "dilations": 1, "output_padding": 0},
    "MaxPool": {"pads": 0, "strides": 1, "dilations": 1},
    "AveragePool": {"pads": 0, "strides": 1, "dilations": 1},
}
_SHAPED_BY_WEIGHT = ("Conv", "ConvTranspose")


def rename(
    model: ir.Model, weights: Sequence[Weight], inputs: Sequence[str], outputs: Sequence[str]
) -> list[str]:
    """Give every value its short name and the ports theirs; returns the names of `weights`, in order."""
    graph = model.graph
    taken = {*inputs, *outputs, *(f"w{at}" for at in range(len(weights)))}
    fresh = (name for name in map(str, itertools.count()) if name not in taken)
    ports = [*zip(graph.inputs, inputs, strict=True), *zip(graph.outputs, outputs, strict=True)]
    named = dict(ports)
    named |= {weight.value: f"w{at}" for at, weight in enumerate(weights)}
    values = dict.fromkeys(graph.initializers.values())
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            for inner in _graphs(attribute):
                values |= dict.fromkeys([*inner.inputs, *inner.initializers.values()])
        values |= dict.fromkeys(node.outputs)
    for value in values:
        if value.name and value not in named:
            named[value] = next(fresh)
    every = list(named.items())
    for at, (value, _) in enumerate(every):
        value.name = f"\0{at}"  # an initialiser may not take a name that another still has
    for value, name in every:
        value.name = name
    return [f"w{at}" for at in range(len(weights))]


def serialize(model: ir.Model, weights: Sequence[Weight]) -> bytes:
    """The bytes of the graph without `weights`."""
    graph = model.graph
    for weight in weights:
        assert weight.value.name is not None
        del graph.initializers[weight.value.name]
        weight.value.const_value = None
    kept = {*graph.inputs, *graph.outputs}
    for node in graph.all_nodes():
        node.name = None
        for value in node.outputs:
            if value not in kept:
                value.shape = value.type = None
    for value in (*graph.initializers.values(), *(weight.value for weight in weights)):
        value.shape = value.type = None
    _name_batch(graph)
    versions = dict(model.opset_imports)
    proto = ir.to_proto(model)
    for field in (
        "producer_name",
        "producer_version",
        "domain",
        "doc_string",
        "model_version",
        "metadata_props",
    ):
        proto.ClearField(field)
    _strip_graph(proto.graph, versions)
    proto.graph.name = "g"
    return bytes(proto.SerializeToString(deterministic=True))


def _name_batch(graph: ir.Graph) -> None:
    """Call the symbol of the free first axis "batch", wherever it stands."""
    symbols: set[str] = set()
    for port in graph.inputs:
        for size in port.shape or ():
            if isinstance(size, ir.SymbolicDim) and size.value:
                symbols.add(str(size.value))
    words = re.compile(r"\b(" + "|".join(map(re.escape, sorted(symbols, key=len, reverse=True))) + r")\b")
    for port in (*graph.inputs, *graph.outputs):
        if symbols and port.shape is not None:
            port.shape = ir.Shape(
                [size if isinstance(size, int) else _renamed(words, str(size.value)) for size in port.shape]
            )


def _renamed(words: re.Pattern[str], symbol: str) -> str:
    return words.sub(BATCH, symbol)


def _graphs(attribute: ir.Attr) -> Collection[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def _strip_graph(graph: onnx.GraphProto, versions: dict[str, int]) -> None:
    for field in ("value_info", "doc_string", "metadata_props", "quantization_annotation"):
        graph.ClearField(field)
    for port in (*graph.input, *graph.output):
        port.ClearField("doc_string")
        port.ClearField("metadata_props")
    for tensor in graph.initializer:
        _strip_tensor(tensor)
    for node in graph.node:
        for field in ("name", "doc_string", "metadata_props", "overload"):
            node.ClearField(field)
        kept = [attribute for attribute in node.attribute if not _is_default(node, attribute, versions)]
        for attribute in kept:
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                _strip_tensor(attribute.t)
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _strip_graph(inner, versions)
        copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in kept]
        node.ClearField("attribute")
        node.attribute.extend(copies)


def _strip_tensor(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("doc_string")
    tensor.ClearField("metadata_props")


def _is_default(node: onnx.NodeProto, attribute: onnx.AttributeProto, versions: dict[str, int]) -> bool:
    """Whether leaving the attribute out means the same."""
    value = onnx.helper.get_attribute_value(attribute)
    if node.op_type in _SHAPED_BY_WEIGHT and attribute.name == "kernel_shape":
        return True
    implied = _IMPLIED.get(node.op_type, {})
    if attribute.name in implied:
        return all(size == implied[attribute.name] for size in value)
    if not onnx.defs.has(node.op_type, versions.get(node.domain, 1), node.domain):
        return False
    schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    known = schema.attributes.get(attribute.name)
    if known is None or known.default_value.type != attribute.type:
        return False
    return bool(onnx.helper.get_attribute_value(known.default_value) == value)
