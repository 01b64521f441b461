"""shapes: the shape of every value of a graph, for inputs of fixed shapes.

    free axes     1, unless `shapes` says otherwise; one name of an axis ("batch") has one size
    inference     onnx.shape_inference with data propagation
    running       where a shape depends on values, or an operator has no shape rule, the model runs once in
                  ONNX Runtime and the missing shapes are read off
    value_info    what the file itself says, where the model cannot be run

Raises: OptionError for shapes that the inputs cannot have; MeasureError when the operators do not fit them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from onnx import ModelProto, ValueInfoProto, helper, shape_inference

from ...errors import MeasureError, OptionError, nearest
from ...runtime import Port
from .file import Model, Value, said
from .run import observe

Shapes = Mapping[str, Sequence[int]]
FREE = "?"  # an axis without name and size
_FOREIGN = re.compile(r"not a registered|No Op registered|NOT_IMPLEMENTED|[Uu]nsupported|not implement|opset")


def fix_inputs_(model: Model, shapes: Shapes | None = None) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Give every input a fixed shape, in place; (inputs, notes)."""
    given = shapes or {}
    ports = {item.name: _port(item, model.where) for item in model.inputs}
    expected = f"The model takes {', '.join(map(str, ports.values())) or 'no inputs'}."
    for name in given:
        if name not in ports:
            raise OptionError(f"shapes: the model has no input {name!r}. {nearest(name, ports)} {expected}")
    axes: dict[str, int] = {}
    for name, shape in given.items():
        _check(ports[name], shape, axes, expected)
    fixed, assumed = {}, []
    for item in model.inputs:
        name, port = item.name, ports[item.name]
        if name not in given and not item.type.tensor_type.HasField("shape"):
            raise OptionError(f"shapes: input {name!r} says no shape. Give one: {{{name!r}: (1, ...)}}.")
        missing = [axis for axis in port.shape[1:] if isinstance(axis, str) and axis not in axes]
        if name not in given and missing:
            assumed.append(
                f"input {port}: free axes ({', '.join(map(str, missing))}) were taken as 1; give shapes to change that"
            )
        sizes = [axes.get(axis, 1) if isinstance(axis, str) else axis for axis in port.shape]
        fixed[name] = Value(tuple(given.get(name, sizes)), item.type.tensor_type.elem_type)
        item.CopyFrom(helper.make_tensor_value_info(name, fixed[name].elem_type, fixed[name].shape))
    return fixed, tuple(assumed)


def infer(model: Model, inputs: Mapping[str, Value]) -> tuple[dict[str, Value], tuple[str, ...]]:
    """({value: shape and type} of all that can be known, notes)."""
    proto = _without_shapes(model.proto)
    known = {**inputs, **{name: item.value for name, item in model.initializers.items()}}
    misfit = ""
    try:
        known |= _static(shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    except shape_inference.InferenceError as error:
        misfit = said(error)
    unknown = _unknown(proto, known)
    if not unknown:
        return known, ()
    try:
        found = observe(model, proto, unknown, inputs)
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = said(error)
    else:
        about = misfit or _first(proto, known, unknown)
        note = f"shapes read off one run on random inputs, because they cannot be inferred ({about}): {len(found)}"
        return {**known, **found}, (note,) if found else ()
    if misfit and not _FOREIGN.search(reason):
        sizes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        raise MeasureError(
            f"{model.where}: the operators do not fit together for inputs {sizes}: {misfit}. Give other shapes."
        )
    known |= _static(shape_inference.infer_shapes(proto, data_prop=True))
    proto.graph.value_info.extend(item for item in model.proto.graph.value_info if item.name not in known)
    known |= _static(shape_inference.infer_shapes(proto, data_prop=True))
    left = len(_unknown(proto, known))
    return known, (
        f"shapes that stay unknown: {left}; ONNX Runtime cannot run the model ({misfit or reason})",
    )


def _port(item: ValueInfoProto, where: str) -> Port:
    """An input with numbers for fixed axes and names for free ones."""
    kind = item.type.WhichOneof("value")
    if kind != "tensor_type":
        raise MeasureError(
            f"{where}: input {item.name!r} is a {kind or 'value without type'}, expected a tensor."
        )
    tensor = item.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.dim_value > 0 else str(dim.dim_param) or FREE for dim in tensor.shape.dim
    )
    return Port(item.name, shape if tensor.HasField("shape") else ("...",), Value((), tensor.elem_type).dtype)


def _check(port: Port, shape: Sequence[int], axes: dict[str, int], expected: str) -> None:
    """OptionError unless the input can have this shape; named axes are entered into `axes`."""
    received = f"shapes: input {port.name!r} was given {list(shape)}"
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in shape):
        raise OptionError(f"{received}, expected whole numbers of at least 1. {expected}")
    if port.shape == ("...",):
        return
    if len(shape) != len(port.shape):
        raise OptionError(f"{received}: {len(shape)} axes instead of {len(port.shape)}. {expected}")
    for at, (size, want) in enumerate(zip(shape, port.shape, strict=True)):
        fixed = want if isinstance(want, int) else axes.setdefault(want, size) if want != FREE else size
        if size != fixed:
            reason = "fixed at" if isinstance(want, int) else f"{want!r}, elsewhere"
            raise OptionError(f"{received}: axis {at} is {reason} {fixed}, not {size}. {expected}")


def _without_shapes(proto: ModelProto) -> ModelProto:
    """A copy that says nothing of intermediate shapes: what is said may hold for other inputs only."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:], copy.graph.output[:]
    copy.graph.output.extend(ValueInfoProto(name=item.name) for item in proto.graph.output)
    return copy


def _static(proto: ModelProto) -> dict[str, Value]:
    """The values whose inferred shape has a number on every axis."""
    found = {}
    for item in (*proto.graph.value_info, *proto.graph.output):
        tensor = item.type.tensor_type
        if item.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
            continue
        if tensor.elem_type and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            found[item.name] = Value(tuple(dim.dim_value for dim in tensor.shape.dim), tensor.elem_type)
    return found


def _unknown(proto: ModelProto, known: Mapping[str, Value]) -> list[str]:
    return [name for node in proto.graph.node for name in node.output if name and name not in known]


def _first(proto: ModelProto, known: Mapping[str, Value], unknown: Sequence[str]) -> str:
    """The operators where inference ended: their inputs are known, their outputs are not."""
    missing = set(unknown)
    kinds = [
        node.op_type
        for node in proto.graph.node
        if missing.intersection(node.output) and all(name in known for name in node.input if name)
    ]
    return ", ".join(dict.fromkeys(kinds))
