"""shapes: the sizes of the values of a graph, as far as its input ports and a few operators tell.

    Conv, MaxPool, AveragePool     (N, O, floor((H + pads - dilation (kernel - 1) - 1) / stride) + 1, ...)
    GlobalAveragePool              (N, C, 1, ...)
    Pad                            each size and what comes before and after it
    Reshape                        the target, 0 for the size that was there, -1 for what is left
    Gemm, MatMul                   the last size is the outputs
    Flatten                        (first axes, the others)
    element-wise                   of the input with most axes, or where they agree

None stands for a size that is not known; a name that is missing has an unknown number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from . import padding
from .graph import Attributes, Node

Shape = tuple[int | None, ...]
ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Where", "GreaterOrEqual", "Greater", "Less", "LessOrEqual"),
    *(
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "Tanh",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Sqrt",
        "Abs",
        "Neg",
    ),
    *("Identity", "Cast", "Sign", "BatchNormalization", "Dropout"),
}


def infer(
    inputs: Mapping[str, Shape],
    nodes: Iterable[tuple[Node, Attributes]],
    constants: Mapping[str, tuple[int, ...]],
    constant: padding.Constant,
) -> dict[str, Shape]:
    """What is known of the shape of each name; `constants` are the shapes of initialisers, `constant` tells their values."""
    known: dict[str, Shape] = {**inputs, **constants}
    for node, attributes in nodes:
        given = [known.get(name) for name in node.inputs if name]
        if node.op == "Pad":
            shape = _padded(node, attributes, given, constant)
        elif node.op == "Reshape" and len(node.inputs) == 2:
            target = constant(node.inputs[1])
            first = given[0] if given else None
            shape = None if first is None or target is None else reshaped(first, target)
        else:
            shape = _of(node.op, attributes, given)
        if shape and node.outputs:
            known[node.outputs[0]] = shape
    return known


def reshaped(given: Shape, target: np.ndarray) -> Shape | None:
    """What a Reshape to `target` makes of a shape."""
    sizes = target.tolist() if target.ndim == 1 and target.dtype == np.int64 else [-2]
    if any(size < -1 for size in sizes) or sizes.count(-1) > 1 or 0 in sizes[len(given) :]:
        return None
    found = [given[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if -1 in sizes:
        total, rest = _product(given), _product(tuple(size for size in found if size != -1))
        found[found.index(-1)] = total // rest if total is not None and rest else None
    return tuple(found)


def _of(op: str, attributes: Attributes, given: list[Shape | None]) -> Shape | None:
    if not given:
        return None
    first = given[0]
    if op in ELEMENTWISE:
        return _broadcast(given if op != "BatchNormalization" else given[:1])
    if first is None:
        return None
    if op == "GlobalAveragePool":
        return (*first[:2], *[1] * (len(first) - 2))
    if op in ("MaxPool", "AveragePool"):
        return _windows(attributes, first, first[1], attributes.lists.get("kernel_shape", ()))
    if op == "Flatten":
        axis = int(attributes.numbers.get("axis", 1))
        return (_product(first[:axis]), _product(first[axis:]))
    weight = given[1] if len(given) > 1 else None
    if weight is None:
        return None
    if op == "Conv" and None not in weight:
        return _windows(attributes, first, weight[0], tuple(size or 0 for size in weight[2:]))
    if op == "Gemm" and not attributes.numbers.get("transA", 0):
        return (first[0], weight[0 if attributes.numbers.get("transB", 0) else 1])
    if op == "MatMul" and len(weight) == 2:
        return (*first[:-1], weight[1])
    return None


def _padded(
    node: Node, attributes: Attributes, given: list[Shape | None], constant: padding.Constant
) -> Shape | None:
    first = given[0] if given else None
    found = padding.of(node, attributes, len(first), constant) if first is not None else None
    if first is None or found is None:
        return None
    grown = map(sum, zip(found.before, found.after, strict=True))
    return tuple(
        None if size is None else max(size + more, 0) for size, more in zip(first, grown, strict=True)
    )


def _windows(
    attributes: Attributes, given: Shape, channels: int | None, kernel: tuple[int, ...]
) -> Shape | None:
    axes = len(given) - 2
    if attributes.texts.get("auto_pad", "NOTSET") != "NOTSET" or len(kernel) != axes:
        return None
    strides = attributes.lists.get("strides", (1,) * axes)
    dilations = attributes.lists.get("dilations", (1,) * axes)
    pads = attributes.lists.get("pads", (0,) * (2 * axes))
    if attributes.numbers.get("ceil_mode", 0) or min(strides) < 1 or len(pads) != 2 * axes:
        return None
    sizes = [
        None
        if size is None
        else (size + pads[i] + pads[i + axes] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, size in enumerate(given[2:])
    ]
    return (given[0], channels, *sizes)


def _broadcast(given: list[Shape | None]) -> Shape | None:
    shapes = [shape for shape in given if shape is not None]
    if len(shapes) < len(given):
        return None
    axes = max(len(shape) for shape in shapes)
    found: list[int | None] = []
    for axis in range(axes):
        sizes = [shape[axis - axes + len(shape)] for shape in shapes if axis - axes + len(shape) >= 0]
        real = {size for size in sizes if size != 1}
        found.append(1 if not real else real.pop() if len(real) == 1 else None)
    return tuple(found)


def _product(sizes: Shape) -> int | None:
    return None if None in sizes else math.prod(size or 0 for size in sizes)
