"""Layer ends: what becomes of a layer's output: the norm that takes it, and the shortcut that is added to it.

    y = layer(x)        z = norm(y) = slope y + offset        z + shortcut

Found while the network runs, by following the tensor itself: a batch norm called on that very y, an addition one of whose
operands is that very y or z. So no graph is traced and names do not matter; a sum behind any other operator is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from ..errors import StepError
from .layer_inputs import Batch, evaluating, submodule

ADDITIONS = frozenset(("add", "add_", "__add__", "__iadd__", "__radd__"))


@dataclass
class Seen:
    """One call of a layer: input, output, the path of the norm behind it, and the shortcut [as y] that is added."""

    x: Tensor
    y: Tensor
    norm: str | None = None
    slope: Tensor | None = None  # [O]
    shortcut: Tensor | None = None
    branch: list[Tensor] = field(default_factory=list)  # y, and z once the norm has run

    @property
    def events(self) -> int:
        """How many things were seen of this call."""
        return len(self.branch) + (self.shortcut is not None)


class _Enough(Exception):
    """Not an error: it ends a forward that has shown all there is to see."""


def look(model: nn.Module, layer: str, batch: Batch, *, events: int | None = None) -> list[Seen]:
    """Every call of `layer` while `model` runs on one batch, in eval mode and without gradients.

    events: all that there is to see, counted over the calls; the forward ends there (None: it runs to its end).

    Raises: OptionError for a layer that is not there, StepError for one that is never called.
    """
    calls: list[Seen] = []
    module = submodule(model, layer)

    def check() -> None:
        if sum(seen.events for seen in calls) == events:
            raise _Enough

    def made(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        # later operators may write into x or y, so the values are copied, and the tensor itself is followed
        calls.append(Seen(x.clone(), y.clone(), branch=[y]))
        check()

    def normed(path: str, norm: _BatchNorm) -> Callable[..., None]:
        def follow(_: nn.Module, args: tuple[Tensor, ...], z: Tensor) -> None:
            for seen in calls:
                if args[0] is seen.branch[-1]:
                    seen.norm, seen.slope = path, slope(norm)
                    seen.branch.append(z)
                    check()

        return follow

    handles = [module.register_forward_hook(made, with_kwargs=True)]
    for path, norm in model.named_modules():
        if isinstance(norm, _BatchNorm) and norm.running_var is not None:
            handles.append(norm.register_forward_hook(normed(path, norm)))
    try:
        with suppress(_Enough), evaluating(model), _Additions(calls, check):
            model(*(batch if isinstance(batch, tuple) else (batch,)))
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise StepError(
            f"{layer}: {type(model).__name__} never calls this layer, so it has no inputs to learn from. Skip it."
        )
    return calls


def slope(norm: _BatchNorm) -> Tensor:
    """What a batch norm multiplies each channel by in eval mode, [C]."""
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale if norm.weight is None else norm.weight * scale


class _Additions(TorchFunctionMode):
    def __init__(self, calls: list[Seen], check: Callable[[], None]) -> None:
        super().__init__()
        self.calls, self.check = calls, check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ADDITIONS and len(args) == 2 and not kwargs:
            with torch._C.DisableTorchFunction():
                self._note(*args)
        return func(*args, **(kwargs or {}))

    def _note(self, left: Any, right: Any) -> None:
        for seen in self.calls:
            for branch, other in ((left, right), (right, left)):
                if branch is seen.branch[-1] and isinstance(other, Tensor) and other.shape == branch.shape:
                    seen.shortcut = other.clone()
                    self.check()
