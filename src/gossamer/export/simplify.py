"""simplify: constant arithmetic is done, no-ops and dead nodes go, reshapes take their simplest form.

Nothing here computes with a weight: a node that reads one is never folded, so every weight stays the
initialiser that it was, whatever its format. (ONNX Runtime folds such nodes when a file is opened.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

ROUNDS = 8
MAX_FOLDED = 2**20  # elements; a larger constant is cheaper computed than stored
_RULES = (
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.reshape_reshape_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.add_0_rule,
    rules.sub_0_rule,
    rules.mul_by_1_rule,
    rules.div_by_1_rule,
    rules.dropout_inference_rule,
    rules.dropout_zero_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)


def simplify(model: ir.Model) -> None:
    """Simplify the model in place; the initialisers it has now are its weights."""
    common.InlinePass()(model)
    keep = _leaves_weights_alone(model)
    for _ in range(ROUNDS):
        folded = optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=False,
            input_size_limit=MAX_FOLDED,
            output_size_limit=MAX_FOLDED,
            should_fold=keep,
        )
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        rewriter.rewrite(model, _RULES)
        before = model.graph.num_nodes()
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.IdentityEliminationPass()(model)
        common.CommonSubexpressionEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
        if not folded.modified and model.graph.num_nodes() == before:
            break
    for node in list(model.graph):
        if node.op_type == "Reshape":
            _flatten(node)
        elif node.op_type == "ReduceMean":
            _pool(node)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.OutputFixPass()(model)


def _leaves_weights_alone(model: ir.Model) -> Callable[[ir.Node], bool | None]:
    weights = {id(value) for value in model.graph.initializers.values() if is_weight(value)}

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(id(value) in weights for value in node.inputs) else None

    return should_fold


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is an initialiser of floats that is more than a scalar."""
    if value is None or value.const_value is None or not value.is_initializer():
        return False
    return value.const_value.dtype.is_floating_point() and value.const_value.size > 1


def _flatten(node: ir.Node) -> None:
    """Reshape to [batch, -1] by a stored shape -> Flatten, which needs none."""
    source, shape = node.inputs[0], node.inputs[1]
    if source is None or shape is None or shape.const_value is None or source.shape is None:
        return
    target = [int(size) for size in shape.const_value.numpy()]
    if 0 not in target:
        node.attributes.pop("allowzero", None)  # it says what a 0 means
    if len(target) != 2 or len(source.shape) < 2:
        return
    first, rest = source.shape[0], list(source.shape)[1:]
    if not all(isinstance(size, int) for size in rest):
        return
    columns = math.prod(size for size in rest if isinstance(size, int))
    kept = target[0] == -1 or (isinstance(first, int) and target[0] == first)
    if not kept or target[1] not in (columns, -1) or 0 in target:
        return
    _become(node, "Flatten", source)


def _pool(node: ir.Node) -> None:
    """The mean over all positions of an image -> GlobalAveragePool (and Flatten), which needs no axes.

    ONNX Runtime has an integer kernel for this operator alone.
    """
    source, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if source is None or source.shape is None or axes is None or axes.const_value is None:
        return
    rank = len(source.shape)
    reduced = sorted(int(axis) % rank for axis in axes.const_value.numpy().ravel())
    if rank <= 2 or reduced != list(range(2, rank)):
        return
    if node.attributes.get_int("keepdims", 1) == 0:
        pool = ir.node("GlobalAveragePool", [source])
        pool.outputs[0].type = source.type
        pool.outputs[0].shape = ir.Shape([*list(source.shape)[:2], *[1] * (rank - 2)])
        assert node.graph is not None
        node.graph.insert_before(node, pool)
        _become(node, "Flatten", pool.outputs[0])
    else:
        _become(node, "GlobalAveragePool", source)


def _become(node: ir.Node, op: str, source: ir.Value) -> None:
    """Replace the node by one of type `op` that reads `source` alone."""
    assert node.graph is not None
    result = node.outputs[0]
    new = ir.node(op, [source])
    new.outputs[0].shape, new.outputs[0].type, new.outputs[0].name = result.shape, result.type, result.name
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], [new], node.outputs, new.outputs)
