"""settle: quantization moves to where it lets layers run on integers.

    layer -> Relu -> MaxPool -> Quantize -> Dequantize -> Reshape -> layer        is the same function as
    layer -> Quantize -> MaxPool -> Reshape -> Dequantize -> layer

QuantizeLinear goes up and DequantizeLinear goes down, past all that can be done on codes (`moves`). ONNX Runtime makes
one integer kernel of a layer between the two, and only if nothing else is there. A Concat whose inputs have no grids
yet takes that of its output; with grids of their own it stays in floats, which ONNX Runtime runs as QLinearConcat.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from .grids import NodeGrid, describe
from .moves import merge_clips, on_codes


def settle(model: ir.Model) -> bool:
    """Move all quantization, in place; whether there is any."""
    graph = model.graph
    if not any(node.op_type == "QuantizeLinear" for node in graph):
        return False
    _push_all(graph)
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and node.graph is graph:
            _pull(graph, node)
    _push_all(graph)
    for node in list(graph):
        if node.op_type == "Clip":
            merge_clips(graph, node)
    common.RemoveUnusedNodesPass()(model)
    return True


def _pull(graph: ir.Graph, quantize: ir.Node) -> None:
    """Move a QuantizeLinear up, towards the layer whose output it rounds."""
    grid = NodeGrid.of(quantize)
    while grid is not None:
        source = quantize.inputs[0]
        before = None if source is None else source.producer()
        if source is None or before is None or len(source.uses()) != 1 or source.is_graph_output():
            return
        if before.op_type == "Concat":
            _pull_apart(graph, before, quantize, grid)
            return
        origin = before.inputs[0]
        if origin is None or origin.producer() is None or len(before.outputs) != 1:
            return  # the graph's own inputs are rounded where they are used
        rounded = quantize.outputs[0]
        readers = list(rounded.uses())
        chain = on_codes(graph, before, grid, [rounded], exact=False)
        if chain is None:
            return
        quantize.replace_input_with(0, origin)
        describe(rounded, origin, ir.DataType.UINT8)
        graph.insert_after(quantize, chain)
        if chain:
            for reader, at in readers:
                reader.replace_input_with(at, chain[-1].outputs[0])
        graph.remove(before, safe=True)


def _pull_apart(graph: ir.Graph, concat: ir.Node, quantize: ir.Node, grid: NodeGrid) -> None:
    """Round the inputs of a Concat instead of its output; those that have grids of their own keep them."""
    given = dict.fromkeys(value for value in concat.inputs if value is not None)
    floats = [value for value in given if NodeGrid.behind(value) is None]
    added = {value: grid.quantize(value) for value in floats}
    graph.insert_before(concat, list(added.values()))
    new = {value: node.outputs[0] for value, node in added.items()}
    if len(floats) < len(given):
        back = [grid.dequantize(value) for value in new.values()]
        graph.insert_before(concat, back)
        new = {value: node.outputs[0] for value, node in zip(floats, back, strict=True)}
    for at, value in enumerate(concat.inputs):
        if value in new:
            concat.replace_input_with(at, new[value])
    if len(floats) == len(given):
        describe(concat.outputs[0], concat.outputs[0], ir.DataType.UINT8)
        quantize.outputs[0].replace_all_uses_with(concat.outputs[0])
        graph.remove(quantize, safe=True)
    for node in added.values():
        _pull(graph, node)


def _push_all(graph: ir.Graph) -> None:
    """Move every DequantizeLinear down, towards the layers that read it."""
    for node in list(graph):
        given = list(node.inputs) if node.op_type == "Concat" else list(node.inputs[:1])
        grid = NodeGrid.behind(given[0]) if given else None
        if grid is None or not all(grid.same(NodeGrid.behind(value)) for value in given):
            continue
        codes = [_codes(value) for value in given]
        if node.op_type == "QuantizeLinear":
            if grid.same(NodeGrid.of(node)):
                node.outputs[0].replace_all_uses_with(codes[0])
                graph.remove(node, safe=True)
            continue
        chain = on_codes(graph, node, grid, codes, exact=True)
        if chain is None:
            continue
        graph.insert_before(node, chain)
        for old, integers in zip(node.outputs, chain[-1].outputs if chain else codes, strict=True):
            back = grid.dequantize(integers)
            graph.insert_before(node, back)
            old.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _codes(value: ir.Value | None) -> ir.Value:
    """What the DequantizeLinear behind `value` reads."""
    node = None if value is None else value.producer()
    assert node is not None
    assert node.inputs[0] is not None
    return node.inputs[0]
