"""file: an ONNX file, read and checked.

Functions inside the file are inlined, and so are operators that are unknown here but that ONNX itself defines by
simpler ones. External data lie beside the file.
Raises: ModelError for a file that is missing, damaged, or of another kind, and for operators that are not known, by
name, with the node that uses them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # published without type hints
from onnx import GraphProto, ModelProto, NodeProto

from ...errors import ModelError, nearest

OLDEST = 7
SMALL = 1024  # entries of a constant that shape inference may look at
DOMAINS = ("", "ai.onnx")


def read(source: str | os.PathLike[str] | bytes, known: frozenset[str]) -> ModelProto:
    """The model of a file, or of its bytes; `known`: the operators that can be built."""
    name = "onnx" if isinstance(source, bytes) else str(source)
    model = _parsed(source, name)
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{name}: holds no graph, expected an ONNX model. Export the network again.")
    if model.graph.sparse_initializer:
        raise ModelError(f"{name}: holds sparse constants, which are not known. Store them dense.")
    opset = opset_of(model)
    if opset < OLDEST:
        raise ModelError(
            f"{name}: opset {opset} is older than {OLDEST}. Convert it with onnx.version_converter.convert_version."
        )
    model = _inlined(model, name, known)
    _refuse_unknown(model, name, known)
    try:
        onnx.checker.check_model(_typed(light(model)))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"{name}: is not a valid ONNX model ({_line(error)}). Export the network again."
        ) from error
    return model


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operators that the model uses."""
    return max((each.version for each in model.opset_import if each.domain in DOMAINS), default=0)


def light(model: ModelProto) -> ModelProto:
    """The same model with large constants as inputs: quick to check and to infer shapes of."""
    result = ModelProto()
    result.ir_version = max(model.ir_version, 4)  # older ones want every constant to be an input
    result.opset_import.extend(model.opset_import)
    graph = result.graph
    graph.name = model.graph.name or "g"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    given = {port.name for port in model.graph.input}
    for tensor in model.graph.initializer:
        size = 1
        for dim in tensor.dims:
            size *= dim
        if size <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return result


def _typed(model: ModelProto) -> ModelProto:
    """The same with some type for every port: runtimes do without, the checker does not."""
    for port in (*model.graph.input, *model.graph.output):
        if port.type.WhichOneof("value") in (None, "tensor_type"):
            port.type.tensor_type.shape.SetInParent()
            port.type.tensor_type.elem_type = port.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
    return model


def _parsed(source: str | os.PathLike[str] | bytes, name: str) -> ModelProto:
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        if not Path(source).is_file():
            raise ModelError(f"{name}: there is no such file.")
        return onnx.load(os.fspath(source))
    except DecodeError as error:
        raise ModelError(
            f"{name}: cannot be read as ONNX ({_line(error)}). Copy or export the file again."
        ) from error
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{name}: cannot be read with its external data ({_line(error)}). Keep the data file beside it."
        ) from error


def _inlined(model: ModelProto, name: str, known: frozenset[str]) -> ModelProto:
    try:
        if model.functions:
            typed = onnx.shape_inference.infer_shapes(model)  # bodies may depend on types
            model = onnx.inliner.inline_local_functions(typed, True)
        unknown = sorted({node.op_type for node in nodes(model.graph) if not _is_known(node, known)})
        wanted = [("", op) for op in unknown if _has_body(op, opset_of(model))]
        if wanted:
            _spell_out(model, wanted)
            typed = onnx.shape_inference.infer_shapes(model)
            model = onnx.inliner.inline_selected_functions(typed, wanted, inline_schema_functions=True)
    except (ValueError, RuntimeError, DecodeError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{name}: its functions cannot be inlined ({_line(error)}).") from error
    return model


def _spell_out(model: ModelProto, wanted: list[tuple[str, str]]) -> None:
    """Write down the defaults of the operators to be inlined, in place: the inliner does not fill them in."""
    ops = {op for _, op in wanted}
    for node in nodes(model.graph):
        if node.op_type not in ops:
            continue
        given = {attribute.name for attribute in node.attribute}
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset_of(model))
        for name, known in schema.attributes.items():
            if name not in given and known.default_value.type != onnx.AttributeProto.UNDEFINED:
                node.attribute.append(known.default_value)


def _has_body(op: str, opset: int) -> bool:
    if not onnx.defs.has(op, max_inclusive_version=opset):
        return False
    schema = onnx.defs.get_schema(op, max_inclusive_version=opset)
    return bool(schema.has_function)  # type: ignore[attr-defined]  # the stubs of onnx lack it


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def _is_known(node: NodeProto, known: frozenset[str]) -> bool:
    return node.domain in DOMAINS and node.op_type in known


def _refuse_unknown(model: ModelProto, name: str, known: frozenset[str]) -> None:
    for node in nodes(model.graph):
        if _is_known(node, known):
            continue
        foreign = node.domain not in DOMAINS
        what = f"{node.domain}::{node.op_type}" if foreign else node.op_type
        where = node.name or (node.output[0] if node.output else "?")
        remedy = (
            "Export the network with ONNX's own operators (without the optimizations of a runtime)."
            if foreign
            else f"{nearest(node.op_type, known)} Replace it by these, or compress the network from its own code."
            if not onnx.defs.has(node.op_type)
            else "Replace it by simpler operators, or compress the network from its own code."
        )
        raise ModelError(f"{name}: node {where!r} is the operator {what}, which cannot be built. {remedy}")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
