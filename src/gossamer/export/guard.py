"""guard: layers that stay in floats between quantized tensors keep their weights as they are.

ONNX Runtime (seen in 1.32: WeightBiasQuantization) rounds the float weight of a Conv, ConvTranspose or Gemm to 8 bits by
itself, and its bias to 32, when it stands directly between DequantizeLinear and QuantizeLinear. That is another
network than the one that was packed, and for a bias that is large beside the weights a wrong one. A Clip of the
input to the lowest value of its own grid changes nothing and keeps the two apart.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import constants
from .grids import NodeGrid, describe

ROUNDED = ("Conv", "ConvTranspose", "Gemm")


def keep_floats(model: ir.Model) -> None:
    """Put the Clip before every such layer, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type not in ROUNDED:
            continue
        source, weight = node.inputs[0], node.inputs[1]
        grid = NodeGrid.behind(source)
        before = None if weight is None else weight.producer()
        if source is None or grid is None or (before is not None and before.op_type == "DequantizeLinear"):
            continue
        if [reader.op_type for reader, _ in node.outputs[0].uses()] != ["QuantizeLinear"]:
            continue
        lowest = constants.shared(graph, np.array(-grid.zero * grid.step, np.float32))
        clip = ir.node("Clip", [source, lowest])
        describe(clip.outputs[0], source, ir.DataType.FLOAT)
        graph.insert_before(node, clip)
        node.replace_input_with(0, clip.outputs[0])
