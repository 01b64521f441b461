"""free: a batch that the file fixes is freed, where that is safe.

Many files hold one batch size, because they were exported with one example: Reshape to [1, 512]. Where the value that
is reshaped has the batch in front and keeps it there, the number is replaced by 0, which says "as it is". Nothing
changes for the batch of the file; what else fixes the batch (a class token expanded to 1) stays.
"""

from __future__ import annotations

from dataclasses import replace

from .graph import Graph


def free(graph: Graph) -> None:
    """Free the batch of every Reshape of the main graph, in place."""
    batches = {graph.shapes.get(value, ())[:1] for value in graph.inputs}
    batch = batches.pop() if len(batches) == 1 else ()
    if batch in ((), (None,)):
        return
    for at, node in enumerate(graph.nodes):
        shape = graph.constants.get(node.inputs[1]) if node.op == "Reshape" else None
        if shape is None or not shape.tensor.numel() or node.attributes.get("allowzero"):
            continue
        if (int(shape.tensor[0]),) != batch or graph.shapes.get(node.inputs[0], ())[:1] != batch:
            continue
        kept = shape.tensor.clone()
        kept[0] = 0
        name = f"{node.inputs[1]}:free"
        graph.constants[name] = replace(shape, tensor=kept)
        graph.nodes[at] = node.changed(inputs=(node.inputs[0], name))
