"""recorder: writes down every operator that runs, with its cost, its activations and the module it ran in.

It sits below autograd, so that functional calls, attention, recurrent layers and modules used twice are seen: every
call ends as operators. Views and questions (is this empty?) execute nothing and are left out.
Raises: MeasureError when a cost given by the caller fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..cost import Cost, Costed
from ..errors import MeasureError
from . import aten
from .elementwise import MOVES
from .memories import Memories
from .schedule import Operation

Rules = Mapping[str, Callable[..., Cost]]
LOOK_UPS = ("embedding", "_embedding_bag", "_embedding_bag_forward_only")
SELECTIONS = ("index_select", "index", "gather")
VECTOR_PRODUCTS = ("mv", "dot", "vdot")


class Recorder(TorchDispatchMode):
    """`operations` in the order they ran; `used` are the names of the caller's own costs that were needed."""

    supports_higher_order_operators = True  # else torch raises before the message here

    def __init__(self, model: nn.Module, memories: Memories, costs: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch stubs
        self.memories = memories
        self.costs = costs
        self.used: set[str] = set()
        self.operations: list[Operation] = []
        self.inputs: tuple[int, ...] = ()
        self.outputs: tuple[int, ...] = ()
        self._names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        self._stack: list[str] = [""]
        self._silent = 0  # inside a layer that knows its own cost
        self._products: dict[int, int] = {}  # activations of products and convolutions -> their second axis

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            name = func.name()  # type: ignore[no-untyped-call]  # torch
            raise MeasureError(
                f"layer {self._stack[-1]!r} calls {name}, which torch runs only compiled, as one piece. "
                "Profile the model with another implementation of it (for attention: sdpa)."
            )
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if func._schema.name == "aten::lift_fresh":  # a constant of the code, which torch has just made
            made = func(*args, **kwargs)
            self.memories.found(made)
            return made
        args, kwargs = pytree.tree_map_only(Tensor, self.memories.running, (args, kwargs))
        result = func(*args, **kwargs)
        self._write_down(func, args, kwargs, _tensors(result))
        return result

    def _write_down(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[Tensor]
    ) -> None:
        memories = self.memories
        read, changed = _tensors((args, kwargs)), _changed(func, args, kwargs)
        for value in read:
            memories.found(value)
        before = {memories.key(value) for value in read}
        new = [value for value in made if memories.key(value) not in before]
        name = _name(func)
        touched = [*changed, *new]
        if torch.Tag.inplace_view in func.tags and name not in MOVES:
            return
        if not touched and (made or func.namespace == "aten"):
            return  # a view, or a question
        if not read and not any(map(_bytes, made)):
            return  # an empty tensor
        reads, writes, held = memories.activations(read), memories.activations(touched), memories.named(read)
        found = Cost() if self._silent else self._rule(func, name, args, kwargs, tuple(made or changed))
        cost = found or Cost()
        if found is not None and not self._silent:
            cost = self._refined(name, found, read, reads, bool(held)).moving(
                weights=sum(_moved(name, value, read, made) for value in read if memories.is_weight(value)),
                inputs=sum(_bytes(value) for value in read if not memories.is_weight(value)),
                outputs=sum(map(_bytes, touched)),
            )
            if cost.macs:
                self._products.update(dict.fromkeys(writes, _channels(touched[0])))
        shown = (made or changed or read)[:1]
        self.operations.append(
            Operation(
                f"{func.namespace}.{name}",
                self._stack[-1],
                reads,
                writes,
                cost,
                held,
                counted=found is not None,
                elementwise=name in aten.IN_PLACE_CAPABLE,
                folds=name in aten.FOLDABLE and self._folds(func, args, kwargs, reads),
                takes_fold=name in aten.TAKES_FOLD,
                output_shape=tuple(shown[0].shape) if shown else (),
            )
        )

    def _folds(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], reads: tuple[int, ...]
    ) -> bool:
        """Whether a norm has fixed statistics, for the channels of the product before it (none were flattened)."""
        channels = _channels(args[0])
        fixed = not _argument(func, "training", args, kwargs)
        return fixed and all(self._products.get(number, channels) == channels for number in reads)

    def _rule(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: tuple[Tensor, ...]
    ) -> Cost | None:
        key = f"{func.namespace}::{name}"
        if key in self.costs:
            self.used.add(key)
            try:
                cost = self.costs[key](*args, **kwargs)
            except Exception as error:
                raise MeasureError(
                    f"costs[{key!r}] failed in layer {self._stack[-1]!r} ({type(error).__name__}: {error}). It is "
                    f"called with the operator's arguments: {func._schema}."
                ) from error
            if not isinstance(cost, Cost):
                raise MeasureError(
                    f"costs[{key!r}] returned {type(cost).__name__}, expected a gossamer.cost.Cost."
                )
            return cost
        if func.namespace != "aten":
            return None
        named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
        return aten.cost(name, aten.Call({**named, **kwargs}, outputs))

    def _refined(
        self,
        name: str,
        cost: Cost,
        read: list[Tensor],
        reads: tuple[int, ...],
        weighted: bool,
    ) -> Cost:
        """A bias added apart from its product counts as a bias; zero weights give no nonzero MACs."""
        if name == "add" and weighted and len(reads) == 1 and reads[0] in self._products:
            return Cost(bias_adds=cost.total_other_ops)
        if not cost.macs:
            return cost
        held = [value for value in read if self.memories.is_weight(value)]
        matrices = [value for value in held if value.dim() > 1 or name in VECTOR_PRODUCTS]
        alone = len(matrices) == 1 and name != "_grouped_mm"
        if alone or name == "mkldnn_rnn_layer":  # each weight works equally often
            nonzero = [self.memories.nonzero(value) for value in matrices]
            numel = sum(value.numel() for value in matrices)
            if numel and None not in nonzero:
                return replace(cost, macs_nonzero=cost.macs * sum(map(int, filter(None, nonzero))) // numel)
        return cost

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Keep track of the module that runs; every hook is removed afterwards."""
        handles = [
            nn.modules.module.register_module_forward_pre_hook(self._enter),
            nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        ]
        for module in model.modules():
            if isinstance(module, Costed):
                handles.append(module.register_forward_hook(self._ask, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._stack.append(self._names.get(id(module), self._stack[-1]))
        self._silent += isinstance(module, Costed)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
        self._silent -= isinstance(module, Costed)

    def _ask(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Count a call of a layer that knows its own cost, unless such a layer called it."""
        if self._silent or not isinstance(module, Costed):
            return
        read, made, own = _tensors((args, kwargs)), _tensors(output), list(module.parameters())
        cost = module.cost(*(tuple(value.shape) for value in read)).moving(
            weights=sum(map(_bytes, own)), inputs=sum(map(_bytes, read)), outputs=sum(map(_bytes, made))
        )
        self.operations.append(
            Operation(
                f"gossamer.{type(module).__name__}",
                self._names[id(module)],
                self.memories.activations(read),
                self.memories.activations(made),
                cost,
                self.memories.named(own),
                output_shape=tuple(made[0].shape) if made else (),
            )
        )


def _tensors(tree: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(tree) if isinstance(value, Tensor)]


def _name(func: Any) -> str:
    """The operator's name without the underscore of the in-place form."""
    name: str = func._schema.name.partition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _changed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that the operator writes to."""
    found = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[index] if index < len(args) else kwargs.get(argument.name))
    return found


def _argument(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An argument by its name; None where the operator has none of that name."""
    for index, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[index] if index < len(args) else kwargs.get(name, argument.default_value)
    return None


def _channels(value: Tensor) -> int:
    """The size of the second axis, that of a convolution's and a batch norm's channels."""
    return value.shape[1] if value.dim() > 1 else 1


def _bytes(value: Tensor) -> int:
    """Bytes a kernel touches: an expanded axis is read from one place."""
    touched = prod(size for size, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return touched * value.element_size()


def _moved(name: str, weight: Tensor, read: list[Tensor], made: list[Tensor]) -> int:
    """Bytes of a weight that are read: of a table only the rows that are looked up."""
    whole = _bytes(weight)
    if name in LOOK_UPS and weight is read[0]:
        return min(whole, read[1].numel() * weight.shape[-1] * weight.element_size())
    return min(whole, _bytes(made[0])) if name in SELECTIONS and made else whole
