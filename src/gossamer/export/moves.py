"""moves: operators that only move, repeat or select values, done on integer codes instead.

    op(step (q - zero)) = step (op(q) - zero)        op(round(x)) = round(op(x))

Rounding is monotone and zero is a code, so this is exact for all of them, for the maximum over a window, and for Relu
and Clip, which become a Clip of the codes, or nothing where the codes end there anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from . import constants
from .grids import TOP, NodeGrid, describe, scalar

RESHAPE = {"Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
SELECT = {"Gather", "GatherElements", "GatherND", "MaxPool", "ReduceMax", "Resize", "Slice", "Split"}
MOVES = {*RESHAPE, *SELECT, "Concat", "Pad"}
FLOAT_MOVES = {"DepthToSpace", "SpaceToDepth"}  # ONNX Runtime 1.18 has no integer kernel for them


def on_codes(
    graph: ir.Graph, node: ir.Node, grid: NodeGrid, codes: Sequence[ir.Value], *, exact: bool
) -> list[ir.Node] | None:
    """A chain that does on `codes` what `node` does on its first len(codes) inputs, [] if nothing; None if none can.

    exact: the inputs are `codes` dequantized, so a bound between two codes cannot be kept; else the output of `node` is
    quantized next, and the bound is rounded with it.
    """
    kind = node.op_type
    if kind in ("Relu", "Clip"):
        return _bounded(graph, node, grid, codes[0], exact)
    if kind in FLOAT_MOVES:
        before = grid.dequantize(codes[0])
        moved = _copy(node, [before.outputs[0]], ir.DataType.FLOAT)
        return [before, moved, grid.quantize(moved.outputs[0])]
    if kind not in MOVES or (kind == "MaxPool" and len(node.outputs) > 1):
        return None
    if kind == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest":
        return None
    inputs = [*codes, *node.inputs[len(codes) :]]
    if kind == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
        filling = 0.0 if len(inputs) < 3 or inputs[2] is None else scalar(inputs[2])
        code = None if filling is None else grid.code(filling, exact=exact)
        if code is None:
            return None
        inputs[2:3] = [constants.shared(graph, np.array(code, np.uint8))]
    return [_copy(node, inputs, ir.DataType.UINT8)]


def merge_clips(graph: ir.Graph, clip: ir.Node) -> None:
    """Let a Clip of codes that reads another one, and alone does, stand for both."""
    source = clip.inputs[0]
    first = None if source is None else source.producer()
    if source is None or first is None or first.op_type != "Clip" or len(source.uses()) != 1:
        return
    if source.dtype != ir.DataType.UINT8:
        return
    ends = [
        [scalar(value) for value in node.inputs[1:3]] + [None] * (3 - len(node.inputs))
        for node in (first, clip)
    ]
    low = max(int(end[0] or 0) for end in ends)
    high = min(TOP if end[1] is None else int(end[1]) for end in ends)
    clip.replace_input_with(0, first.inputs[0])
    bounds = _bounds(graph, min(low, high), high)
    clip.resize_inputs(1 + len(bounds))
    for at, bound in enumerate(bounds):
        clip.replace_input_with(1 + at, bound)
    graph.remove(first, safe=True)


def _copy(node: ir.Node, inputs: Sequence[ir.Value | None], dtype: ir.DataType) -> ir.Node:
    attributes = dict(node.attributes)
    new = ir.node(node.op_type, inputs, attributes, num_outputs=len(node.outputs), version=node.version)
    for result, old in zip(new.outputs, node.outputs, strict=True):
        describe(result, old, dtype)
    return new


def _bounded(
    graph: ir.Graph, node: ir.Node, grid: NodeGrid, codes: ir.Value, exact: bool
) -> list[ir.Node] | None:
    limits: list[float | None] = [0.0 if node.op_type == "Relu" else -np.inf, np.inf]
    for at, value in enumerate(node.inputs[1:3]):
        limits[at] = limits[at] if value is None else scalar(value)
    low, high = (None if limit is None else grid.code(limit, exact=exact) for limit in limits)
    if low is None or high is None:
        return None
    bounds = _bounds(graph, low, high)
    if not bounds:
        return []
    clip = ir.node("Clip", [codes, *bounds])
    describe(clip.outputs[0], codes, ir.DataType.UINT8)
    return [clip]


def _bounds(graph: ir.Graph, low: int, high: int) -> list[ir.Value | None]:
    """The inputs of a Clip that say low and high, as far as codes do not end there anyway."""
    least = constants.shared(graph, np.array(low, np.uint8)) if low > 0 else None
    most = constants.shared(graph, np.array(high, np.uint8)) if high < TOP else None
    return [least, most] if most is not None else [least] if least is not None else []
