"""dispatch: a torch model -> the schedule it executes, recorded below autograd, operator by operator.

The model runs once, in eval mode, on tensors without values (FakeTensorMode): a network of any size costs no
memory, also when its weights lie on the meta device, and the model is never changed. Functional calls, attention,
recurrent layers and modules used twice are seen, because every call ends as operators. Only when the control flow
depends on values does the model run on the real tensors; a note says so.

A parameter is known by its memory, so tied weights and views of one weight are one. Weights that carry a format
are taken decoded, as the file runs them.
Raises: ModelError when the model cannot be called on the example; MeasureError when its control flow depends on
values that are not there (a model on the meta device).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .. import formats
from ..cost import Cost, Costed
from ..errors import MeasureError, ModelError
from ..export.example import Example, call, evaluating
from . import aten
from .memories import Memories
from .schedule import Layer, Operation, Recorded, Schedule

Rules = Mapping[str, Callable[..., Cost]]
ON_VALUES = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)


def record_torch(model: nn.Module, example: Any, *, costs: Rules | None = None) -> Recorded:
    """Run `model` on `example` (see export.Example) and return what it executed.

    `costs` gives rules for operators of your own: {"mylib::op": function of the call's arguments -> Cost}.
    """
    plain = _plain(model)
    given = example if isinstance(example, Example) else Example.of(plain, example)
    on_meta = any(value.is_meta for value in (*plain.parameters(), *plain.buffers()))
    notes: tuple[str, ...] = ()
    try:
        recorder = _run_fake(plain, given, costs or {})
    except Exception as error:
        reason = _first_line(error)
        if on_meta:
            if isinstance(error, ON_VALUES):
                raise MeasureError(
                    f"the model's control flow depends on values ({reason}), and weights on the meta device have "
                    "none. Load the model with weights on the CPU."
                ) from error
            raise ModelError(f"the model cannot be called on the example ({given}): {reason}.") from error
        call(plain, given)  # raises with the layer's name when the example is wrong
        recorder = _run_real(plain, given, costs or {})
        notes = (
            f"counted on the values of this example, because the model cannot run without them ({reason})",
        )
    shapes = {
        name: (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        for name, value in zip(given.names, given.tensors, strict=True)
    }
    schedule = Schedule(
        tuple(recorder.operations), recorder.memories.sizes, recorder.inputs, recorder.outputs
    )
    weights = recorder.memories.weights(plain)
    return Recorded(schedule, _layers(plain, recorder, weights), weights, shapes, notes)


class Recorder(TorchDispatchMode):
    """Writes down every operator, with the module it ran in."""

    def __init__(self, model: nn.Module, memories: Memories, costs: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch stubs
        self.memories = memories
        self.costs = costs
        self.operations: list[Operation] = []
        self.inputs: tuple[int, ...] = ()
        self.outputs: tuple[int, ...] = ()
        self._names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        self._stack: list[str] = [""]
        self._silent = 0  # inside a layer that knows its own cost
        self._products: set[int] = set()  # activations that a matrix product or convolution just made

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        read = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        before = [self.memories.known(value) for value in read]
        result = func(*args, **kwargs)
        made = tuple(value for value in pytree.tree_leaves(result) if isinstance(value, Tensor))
        self._write_down(func, args, kwargs, read, before, made)
        return result

    def _write_down(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        read: list[Tensor],
        before: list[bool],
        made: tuple[Tensor, ...],
    ) -> None:
        memories = self.memories
        changed = _changed(func, args, kwargs)
        for value, known in zip(read, before, strict=True):
            if not known:  # a constant that the model holds, such as a table it is not registered with
                memories.constant(value)
        views = {memories.key(value) for value in read}
        new = [value for value in made if memories.key(value) not in views]
        if not new and not changed and made:
            return  # a view
        if not read and not any(map(_bytes, made)):
            return  # an empty tensor
        reads = memories.activations(read)
        writes = memories.activations([*changed, *new])
        name = _name(func)
        spoken = f"{func.namespace}.{name}"
        found = self._rule(func, name, args, kwargs, made or changed)
        held = memories.named(read)
        cost = found or Cost()
        if found is not None:
            cost = self._refined(name, cost, read, writes, reads, held)
            cost = cost.moving(
                weights=sum(_moved(name, value, made) for value in read if memories.is_weight(value)),
                inputs=sum(_bytes(value) for value in read if not memories.is_weight(value)),
                outputs=sum(_bytes(value) for value in (*changed, *new)),
            )
        if self._silent:
            cost, found = Cost(), Cost()
        shape = tuple((made or changed or read)[0].shape) if (made or changed or read) else ()
        self.operations.append(
            Operation(
                spoken,
                self._stack[-1],
                reads,
                writes,
                cost,
                held,
                counted=found is not None,
                elementwise=name in aten.IN_PLACE_CAPABLE,
                folds=name in aten.FOLDABLE,
                takes_fold=name in aten.TAKES_FOLD,
                output_shape=shape,
            )
        )

    def _rule(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: tuple[Tensor, ...]
    ) -> Cost | None:
        own = self.costs.get(f"{func.namespace}::{name}")
        if own is not None:
            return own(*args, **kwargs)
        if func.namespace != "aten":
            return None
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
        return aten.cost(name, aten.Call({**named, **kwargs}, outputs))

    def _refined(
        self,
        name: str,
        cost: Cost,
        read: list[Tensor],
        writes: tuple[int, ...],
        reads: tuple[int, ...],
        held: tuple[str, ...],
    ) -> Cost:
        """A bias added apart from its product counts as a bias; zero weights give no nonzero MACs."""
        if name == "add" and held and len(reads) == 1 and reads[0] in self._products:
            return Cost(bias_adds=cost.total_other_ops)
        if not cost.macs:
            return cost
        self._products.update(writes)
        matrices = [value for value in read if self.memories.is_weight(value) and value.dim() > 1]
        if len(matrices) == 1:
            nonzero = self.memories.nonzero(matrices[0])
            if nonzero is not None:
                return replace(cost, macs_nonzero=cost.macs * nonzero // max(matrices[0].numel(), 1))
        return cost

    @contextmanager
    def following(self) -> Iterator[None]:
        """Keep track of the module that runs; torch's global hooks touch no module and are removed."""
        before = nn.modules.module.register_module_forward_pre_hook(self._enter)
        after = nn.modules.module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._stack.append(self._names.get(id(module), self._stack[-1]))
        self._silent += isinstance(module, Costed)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        layer = self._stack.pop()
        if not isinstance(module, Costed):
            return
        self._silent -= 1
        read = [value for value in pytree.tree_leaves(args) if isinstance(value, Tensor)]
        made = [value for value in pytree.tree_leaves(output) if isinstance(value, Tensor)]
        if self._silent or not made:
            return
        own = [self.memories.alias(value) for value in module.parameters()]
        cost = module.cost(*(tuple(value.shape) for value in read)).moving(
            weights=sum(map(_bytes, own)), inputs=sum(map(_bytes, read)), outputs=sum(map(_bytes, made))
        )
        self.operations.append(
            Operation(
                f"gossamer.{type(module).__name__}",
                layer,
                self.memories.activations(read),
                self.memories.activations(made),
                cost,
                self.memories.named(own),
                output_shape=tuple(made[0].shape),
            )
        )


def _run_fake(model: nn.Module, example: Example, costs: Rules) -> Recorder:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    memories = Memories()
    with mode:
        replaced = memories.without_values(model)
    inputs = example.changed(lambda value: mode.from_tensor(value))
    return _run(model, inputs, replaced, memories, costs, mode)


def _run_real(model: nn.Module, example: Example, costs: Rules) -> Recorder:
    memories = Memories()
    inputs = example.changed(lambda value: value.clone())
    return _run(model, inputs, memories.with_values(model), memories, costs, nullcontext())


def _run(
    model: nn.Module,
    example: Example,
    tensors: dict[str, Tensor],
    memories: Memories,
    costs: Rules,
    mode: Any,
) -> Recorder:
    recorder = Recorder(model, memories, costs)
    recorder.inputs = memories.activations(list(example.tensors), new=True)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one opaque operator for a whole encoder layer
    try:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            evaluating(model),
            mode,
            recorder.following(),
            recorder,
        ):
            result = torch.func.functional_call(
                model, tensors, example.args, example.kwargs, tie_weights=False
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    made = [value for value in pytree.tree_leaves(result) if isinstance(value, Tensor)]
    recorder.outputs = memories.activations(made)
    return recorder


def _plain(model: nn.Module) -> nn.Module:
    """The module itself: wrappers of torch removed, formats decoded."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"profile: received {type(model).__name__}, expected a torch.nn.Module.")
    inner = getattr(model, "_orig_mod", model)  # torch.compile
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    return formats.baked(inner) if formats.attached(inner) else inner


def _layers(model: nn.Module, recorder: Recorder, weights: tuple[Any, ...]) -> tuple[Layer, ...]:
    """Layers in order of first execution, then those that own weights and never ran."""
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    order = dict.fromkeys([operation.layer for operation in recorder.operations])
    order |= dict.fromkeys(weight.layer for weight in weights)
    return tuple(Layer(name, kinds.get(name, "")) for name in order)


def _name(func: Any) -> str:
    """The operator's name without the underscore of the in-place form."""
    name: str = func._schema.name.partition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The arguments that the operator writes to."""
    found = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return tuple(found)


def _bytes(value: Tensor) -> int:
    """Bytes a kernel touches: an expanded axis is read from one place."""
    touched = prod(size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return touched * value.element_size()


def _moved(name: str, weight: Tensor, made: tuple[Tensor, ...]) -> int:
    """Bytes of a weight that are read: a look-up reads the rows it returns."""
    whole = _bytes(weight)
    return min(whole, _bytes(made[0])) if name in ("embedding", "index_select", "index") and made else whole


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
