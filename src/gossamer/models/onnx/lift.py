"""lift: integers are turned into floats before they are moved, not after.

    QuantizeLinear -> Slice, Pad, ... of integers -> DequantizeLinear
    QuantizeLinear -> DequantizeLinear -> Slice, Pad, ... of floats

Integer networks move bytes where they can; here the pair must stand together to become one rounding. One scale and zero
point for the whole tensor make both the same, if padding adds the zero point.
"""

from __future__ import annotations

from .graph import Graph, Node

MOVES = (
    *("Slice", "Pad", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Identity"),
    *("MaxPool", "DepthToSpace", "SpaceToDepth"),
)


def lift(graph: Graph) -> None:
    """Swap every DequantizeLinear with the moves before it, in place."""
    count = 0
    swapped = True
    while swapped:
        swapped = False
        makers = {value: node for node in graph.nodes for value in node.outputs}
        readers = graph.readers()
        for at, back in enumerate(graph.nodes):
            move = makers.get(back.inputs[0]) if back.op == "DequantizeLinear" else None
            if move is None or move.op not in MOVES or len(readers[back.inputs[0]]) > 1:
                continue
            if (
                back.inputs[0] in graph.outputs
                or not _is_single(graph, back)
                or not _pads_zero(graph, move, back)
            ):
                continue
            count += 1
            floats = f"{move.inputs[0]}:float{count}"
            moved = (
                (floats, move.inputs[1], "", *move.inputs[3:])
                if move.op == "Pad"
                else (floats, *move.inputs[1:])
            )
            first = back.changed(inputs=(move.inputs[0], *back.inputs[1:]), outputs=(floats,))
            second = move.changed(inputs=moved, outputs=back.outputs)
            place = next(place for place, node in enumerate(graph.nodes) if node is move)
            graph.nodes[at : at + 1] = [second]
            graph.nodes[place : place + 1] = [first]
            swapped = True
            break


def _is_single(graph: Graph, back: Node) -> bool:
    """Whether scale and zero point are constants for the whole tensor."""
    given = [graph.constants.get(value) for value in back.inputs[1:] if value]
    return all(constant is not None and constant.tensor.numel() == 1 for constant in given)


def _pads_zero(graph: Graph, move: Node, back: Node) -> bool:
    """Whether padding, if there is some, adds what stands for zero."""
    if move.op != "Pad" or move.attributes.get("mode", "constant") != "constant":
        return True
    if len(move.inputs) < 2:
        return False  # the form before opset 11, which knew no integers
    values = [
        graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        for node in (move, back)
    ]
    fill, zero = (int(constant.tensor) if constant is not None else 0 for constant in values)
    return fill == zero
