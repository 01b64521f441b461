"""dispatch: a torch model -> the schedule it executes, recorded operator by operator.

The model runs once, in eval mode, on tensors without values (FakeTensorMode): a network of any size costs no
memory, also when its weights lie on the meta device, and the model is found as it was. Only when the control flow
depends on values does the model run on a copy of the real ones; a note says so.

A parameter is known by its memory, so tied weights and views of one weight are one. Weights that carry a format
are taken decoded, as the file runs them.
Raises: ModelError when the model cannot be called on the example; MeasureError when its control flow depends on
values that are not there (a model on the meta device) or a tensor has no memory (sparse layouts).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from .. import formats
from ..errors import GossamerError, MeasureError, ModelError, OptionError
from ..export.example import Example, call
from .memories import Memories, weights
from .recorder import Recorder, Rules
from .schedule import Layer, Recorded, Schedule, Weight
from .untouched import plain_operators, untouched

ON_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)


def record_torch(model: nn.Module, example: Any, *, costs: Rules | None = None) -> Recorded:
    """Run `model` on `example` (see export.Example) and return what it executed.

    `costs` gives rules for operators of your own: {"mylib::op": function of the call's arguments -> Cost}.
    """
    rules = costs or {}
    for key in rules:
        if "::" not in key:
            raise OptionError(f"costs[{key!r}]: expected the name of an operator such as 'mylib::op'.")
    plain = _plain(model)
    given = example if isinstance(example, Example) else Example.of(plain, _with_values(example))
    held = weights(plain)
    notes: list[str] = []
    try:
        recorder = _run(plain, given, rules, values=False)
    except ModelError as error:
        reason = _first_line(error.__cause__ or error)
        if any(value.is_meta for value in (*plain.parameters(), *plain.buffers())):
            if not isinstance(error.__cause__, ON_VALUES) and "numpy" not in reason:
                raise
            raise MeasureError(
                f"the model's control flow depends on values ({reason}), and weights on the meta device have "
                "none. Load the model with weights on the CPU."
            ) from error
        recorder = _run(plain, given, rules, values=True)
        notes.append(f"counted on the values of this example: the model does not run without them ({reason})")
    notes += [f"costs[{key!r}]: this operator was not called" for key in rules if key not in recorder.used]
    schedule = Schedule(
        tuple(recorder.operations), recorder.memories.sizes, recorder.inputs, recorder.outputs
    )
    shapes = {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in zip(given.names, given.tensors, strict=True)
    }
    return Recorded(schedule, _layers(plain, recorder, held), held, shapes, tuple(notes))


def _run(model: nn.Module, example: Example, costs: Rules, *, values: bool) -> Recorder:
    """One call on stand-ins of all weights, with a copy of their values or without any."""
    fake = None if values else FakeTensorMode(allow_non_fake_inputs=True)
    mode = fake or nullcontext()
    inputs = example.changed(fake.from_tensor if fake else torch.clone)
    memories = Memories(values=values)
    recorder = Recorder(model, memories, costs)
    recorder.inputs = memories.activations(inputs.tensors, new=True)
    with torch.inference_mode(False), torch.no_grad(), plain_operators(), untouched(model), mode:
        memories.replace_(model)
        try:
            with recorder.following(model), recorder:
                result = call(model, inputs)
        except ModelError as error:
            if isinstance(error.__cause__, GossamerError):
                raise error.__cause__ from None
            raise
    returned = [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
    for value in returned:
        memories.found(value)
    recorder.outputs = memories.activations(returned)
    return recorder


def _plain(model: nn.Module) -> nn.Module:
    """The module itself: wrappers of torch removed, formats decoded."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"profile: received {type(model).__name__}, expected a torch.nn.Module.")
    inner = getattr(model, "_orig_mod", model)  # torch.compile
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    for name, module in inner.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                f"layer {name!r} is a TorchScript module, whose weights cannot be followed. Profile the "
                "torch.nn.Module it was made from."
            )
    for name, value in inner.named_parameters():
        if is_lazy(value):
            raise ModelError(f"{name} has no shape yet. Call the model once before it is profiled.")
    return formats.baked(inner) if formats.attached(inner) else inner


def _with_values(example: Any) -> Any:
    """Zeros for tensors of the meta device: only shapes matter."""
    return pytree.tree_map_only(
        Tensor, lambda value: torch.zeros_like(value, device="cpu") if value.is_meta else value, example
    )


def _layers(model: nn.Module, recorder: Recorder, weights: tuple[Weight, ...]) -> tuple[Layer, ...]:
    """Layers in order of first execution, then those that own weights and never ran."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    order = dict.fromkeys([operation.layer for operation in recorder.operations])
    order |= dict.fromkeys(weight.layer for weight in weights)
    return tuple(Layer(name, kinds.get(name, "")) for name in order)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
