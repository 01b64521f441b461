"""trace: a torch model in eval mode -> an ONNX graph whose initialisers are the model's own tensors.

torch.export records the model (non-strict), torch.onnx translates it with optimize=False: its optimiser folds
transposes and slices into new initialisers, and a weight that was changed is a weight whose format is lost.

The batch stays symbolic where the model allows it: the first axis of every input that has the batch's size.
A batch of 1 is repeated for the tracing, because torch.export takes a size of 1 as a constant. A model that
cannot be traced so is traced with the example's own batch, and the reason is returned as a note.

Raises: ExportError with torch's own first line, the operator or source line, and a remedy.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from .. import tracing
from ..errors import ExportError
from ..methods.layer_inputs import evaluating
from . import operators
from .example import Example

BATCH = "batch"
_REMEDIES = (
    tracing.DATA_DEPENDENT,
    (
        ("No ONNX function", "DispatchError"),
        "ONNX has no such operator: rewrite the line with ordinary operators.",
    ),
    (("NotImplementedError", "fake tensor", "FakeTensor"), "Use torch operators only, inside forward."),
)


@dataclass(frozen=True)
class Traced:
    """The graph, the parameters and buffers that forward never reads, and what could not be done as asked."""

    model: ir.Model
    unused: frozenset[str]
    notes: tuple[str, ...] = ()


def trace(model: nn.Module, example: Example, *, dynamic_batch: bool = True) -> Traced:
    """Record `model` as an ONNX graph; inputs keep the order of `example.names`."""
    reason = ""
    if dynamic_batch:
        widened = _widened(example)
        size = _batch(widened)
        if size is not None:
            try:
                return _translate(model, widened, size)
            except Exception as error:
                reason = tracing.said(error)
        else:
            reason = "the inputs share no first axis"
    try:
        traced = _translate(model, example, None)
    except Exception as error:
        what = f"the model cannot be traced{tracing.place(error)}: {tracing.said(error)}."
        raise ExportError(f"{what} {tracing.remedy(error, _REMEDIES)}".strip()) from error
    if not dynamic_batch:
        return traced
    size = _batch(example)
    fixed = f"fixed at {size}" if size is not None else "not symbolic"
    note = f"the batch is {fixed}, because the model cannot be traced with a free one: {reason}"
    return Traced(traced.model, traced.unused, (note,))


def _translate(model: nn.Module, example: Example, batch: int | None) -> Traced:
    def free(value: torch.Tensor) -> dict[int, object] | None:
        return (
            {0: torch.export.Dim.DYNAMIC}
            if batch is not None and value.ndim and len(value) == batch
            else None
        )

    shapes: Any = (
        {key: free(value) for key, value in example.kwargs.items()}
        if example.kwargs
        else tuple(free(value) for value in example.args)
    )
    with tracing.quiet(), evaluating(model):
        if example.args and _takes_any(model):
            shapes = (shapes,)
        program = torch.export.export(
            model, example.args, example.kwargs, dynamic_shapes=shapes, strict=False
        )
        unused = _unused(program)
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            optimize=False,
            verbose=False,
            custom_translation_table=operators.table(),
        )
    if translated is None:
        raise ExportError("torch.onnx returned no model.")
    return Traced(translated.model, unused)


def _unused(program: torch.export.ExportedProgram) -> frozenset[str]:
    signature = program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = program.graph_module.graph.nodes
    return frozenset(held[node.name] for node in nodes if node.name in held and not node.users)


def _takes_any(model: nn.Module) -> bool:
    """Whether forward is `forward(*inputs)`: torch.export then wants the shapes one level deeper."""
    kinds = [item.kind for item in inspect.signature(model.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds and kinds[0] == inspect.Parameter.VAR_POSITIONAL


def _batch(example: Example) -> int | None:
    """The size of the first axis of the first input that has one."""
    return next((len(value) for value in example.tensors if value.ndim), None)


def _widened(example: Example) -> Example:
    """The example with a batch of 1 repeated to 2, so that it is not taken as a constant."""
    if _batch(example) != 1:
        return example
    return example.changed(
        lambda value: torch.cat([value, value]) if value.ndim and len(value) == 1 else value
    )
