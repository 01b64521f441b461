"""attach: quantizers on a network, at the places of a Placement; the module stays the user's own.

The quantizers are submodules under `activation_quantizers`, named by the call whose output they round. The module
gets a class of its own whose forward counts calls (calls.Follow) and rounds where a quantizer waits; its parameters
keep their names, and deep copies, state_dicts and formats on weights work as before.
Raises: ModelError when a forward makes other calls than the recorded one (control flow that depends on values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ModelError
from .base import Quantizer
from .calls import BEHIND, Follow
from .placement import Place, Placement

NAME = "activation_quantizers"


class Quantizers(nn.Module):
    """The quantizers of a network by the name of their place; `norms`: call -> the batch norm behind it."""

    def __init__(
        self, kinds: tuple[str, ...], quantizers: dict[str, Quantizer], norms: dict[int, str]
    ) -> None:
        super().__init__()
        self.kinds = kinds
        self.norms = norms
        for name, quantizer in quantizers.items():
            self.add_module(name, quantizer)

    def forward(self, x: Any) -> Any:
        """What it gets: a Sequential calls every child, and this one does its work elsewhere."""
        return x

    def output(self, model: nn.Module, index: int, kind: str, result: Any) -> Any:
        """What the call `index` returns: rounded, if a quantizer waits there and no batch norm comes first."""
        if kind != BEHIND and (index >= len(self.kinds) or self.kinds[index] != kind):
            expected = self.kinds[index] if index < len(self.kinds) else "no more calls"
            raise ModelError(
                f"call {index} of this forward is {kind}, but {expected} when the quantizers were placed. A network "
                "that chooses its path by values cannot be quantized; calibrate on the path that is used."
            )
        quantizer = self._modules.get(f"call{index}")
        if quantizer is None or (kind == BEHIND) != self._has_norm(model, index):
            return result
        with torch._C.DisableTorchFunction():
            return pytree.tree_map(lambda leaf: quantizer(leaf) if isinstance(leaf, Tensor) else leaf, result)

    def _has_norm(self, model: nn.Module, index: int) -> bool:
        """Whether a batch norm still stands behind the call (folding replaces it)."""
        path = self.norms.get(index)
        return path is not None and not isinstance(model.get_submodule(path), nn.Identity)

    def input(self, index: int, value: Tensor) -> Tensor:
        """An input of the network, rounded if a quantizer waits there."""
        quantizer = self._modules.get(f"input{index}")
        return value if quantizer is None else quantizer(value)


def attach(model: nn.Module, placement: Placement, make: Callable[[Place], Quantizer]) -> None:
    """Put a quantizer at every place, in place."""
    if quantized(model):
        raise ModelError("the network already has quantizers. Detach them first (quantizers.detach).")
    made = {place.name: make(place) for place in placement.places}
    norms = {place.call: place.norm for place in placement.places if place.norm}
    holder = Quantizers(placement.kinds, made, norms)
    device = next((value.device for value in model.parameters()), None)
    model.add_module(NAME, holder if device is None else holder.to(device))
    plain = type(model)
    model.__class__ = type(plain.__name__, (plain,), {"forward": _forward(plain), "_plain_class": plain})


def detach(model: nn.Module) -> None:
    """Take all quantizers off, in place."""
    if quantized(model):
        delattr(model, NAME)
        model.__class__ = model._plain_class  # type: ignore[assignment]  # set by attach


def quantized(model: nn.Module) -> bool:
    """Whether the network carries quantizers."""
    return NAME in model._modules


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """The quantizers by the name of their place, in the order of the calls; empty where there are none."""
    holder = model._modules.get(NAME)
    if holder is None:
        return {}
    return {name: child for name, child in holder.named_children() if isinstance(child, Quantizer)}


def set_state(model: nn.Module, state: str) -> None:
    """Let every quantizer observe, quantize, or pass ("off")."""
    for quantizer in quantizers(model).values():
        quantizer.state = state


@contextmanager
def unquantized(model: nn.Module) -> Iterator[None]:
    """The float network inside, the states as before afterwards."""
    before = {name: quantizer.state for name, quantizer in quantizers(model).items()}
    set_state(model, "off")
    try:
        yield
    finally:
        for name, quantizer in quantizers(model).items():
            quantizer.state = before[name]


def _forward(plain: type[nn.Module]) -> Callable[..., Any]:
    @wraps(plain.forward)  # its signature names the inputs of a packed file
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        holder: Quantizers = getattr(self, NAME)
        leaves, tree = pytree.tree_flatten((args, kwargs))
        count = -1
        for at, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                count += 1
                leaves[at] = holder.input(count, leaf)
        args, kwargs = pytree.tree_unflatten(leaves, tree)
        with Follow(partial(holder.output, self)):
            return plain.forward(self, *args, **kwargs)

    return forward
