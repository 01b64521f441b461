"""Layer inputs: what chosen layers receive and return while a network runs on calibration data.

    watch     shows every call of the layers; a forward ends as soon as the last of them was called
    called    the layers that run, in the order of their first calls
    sample    x [g, M, K]: the inputs of single output positions, unfolded, at most `positions` per picture
    moments   mean and standard deviation of each output channel, over all samples and positions

The network runs as it is: with weights rounded so far, inputs come from the rounded prefix. It runs in eval mode,
without gradients; flags, random state and requires_grad are afterwards as they were. M = samples * positions, K = I/g
times the kernel's size, g groups; the same seed, batches and shapes give the same places in two networks.
A batch is a tensor, or a tuple of one tensor per argument, with the samples on the first axis.
Raises: OptionError for a layer that is not there, StepError for one that is never called and for no batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import FormatError, OptionError, StepError, nearest
from . import patches

Batch = Tensor | tuple[Tensor, ...]
See = Callable[[str, Tensor, Tensor], None]


class _Enough(Exception):
    """Not an error: it ends a forward that has shown all that was asked for."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients and a random state of its own inside; each module's own mode again afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def watch(model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], see: See) -> None:
    """Run `model` on every batch and call `see(layer, input, output)` at each call of the layers, in their order.

    The tensors are the network's own: `see` reads them at once, or copies them.
    """
    modules = {layer: submodule(model, layer) for layer in layers}
    calls: Counter[str] = Counter()
    left = [0]

    def count(layer: str, x: Tensor, y: Tensor) -> None:
        calls[layer] += 1

    def show(layer: str, x: Tensor, y: Tensor) -> None:
        see(layer, x, y)
        left[0] -= 1
        if not left[0]:
            raise _Enough

    with evaluating(model), parametrize.cached():
        for batch in batches:
            if not calls:
                with _hooked(modules, count):
                    _run(model, tuple(x[:1] for x in _tuple(batch)))
                _check_called(model, layers, calls)
            left[0] = calls.total()
            with _hooked(modules, show):
                _run(model, _tuple(batch))
    if not calls:
        raise StepError("There are no calibration batches. Pass at least one, e.g. 512 training inputs.")


def called(model: nn.Module, layers: Sequence[str], batches: Iterable[Batch]) -> list[str]:
    """Those of the layers that the network calls, in the order of their first calls; the first sample is enough."""
    order: dict[str, None] = {}
    modules = {layer: submodule(model, layer) for layer in layers}
    with (
        evaluating(model),
        parametrize.cached(),
        _hooked(modules, lambda layer, x, y: order.setdefault(layer)),
    ):
        for batch in batches:
            _run(model, tuple(x[:1] for x in _tuple(batch)))
            break
    return list(order)


def sample(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Batch], *, positions: int = 32, seed: int = 0
) -> dict[str, Tensor]:
    """{layer: x}, float32 [g, M, K]; outputs at these places are x @ W^T + b with W as [g, O/g, K]."""
    modules = {layer: reconstructable(model, layer) for layer in layers}
    generators = {layer: torch.Generator().manual_seed(seed) for layer in layers}
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: str, x: Tensor, y: Tensor) -> None:
        for part in torch.split(x, patches.chunk(modules[layer], x, y)):
            at = patches.places(y, positions, generators[layer])
            found[layer].append(patches.inputs(modules[layer], part, at).float().contiguous())

    watch(model, layers, batches, keep)
    return {layer: torch.cat(found.pop(layer), dim=1) for layer in layers}


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each channel; float64 [O]."""

    mean: Tensor
    std: Tensor


@dataclass
class _Sums:
    count: int = 0
    first: Any = 0.0
    second: Any = 0.0


def moments(model: nn.Module, layers: Sequence[str], batches: Iterable[Batch]) -> dict[str, Moments]:
    """{layer: moments of its outputs}, in the order in which the layers are called; channels as `channel_axis` says."""
    sums: dict[str, _Sums] = {}
    axes = {layer: channel_axis(submodule(model, layer)) for layer in layers}

    def add(layer: str, x: Tensor, y: Tensor) -> None:
        wide = y.double().movedim(axes[layer], -1).flatten(0, -2)
        held = sums.setdefault(layer, _Sums())
        held.count += len(wide)
        held.first = held.first + wide.sum(dim=0)
        held.second = held.second + wide.square().sum(dim=0)

    watch(model, layers, batches, add)
    result = {}
    for layer, held in sums.items():
        mean = held.first / held.count
        result[layer] = Moments(mean, (held.second / held.count - mean.square()).clamp_min(0).sqrt())
    return result


def channel_axis(module: nn.Module) -> int:
    """Where a layer keeps its output channels: last after a linear layer, else axis 1."""
    return -1 if isinstance(module, nn.Linear) else 1


def submodule(model: nn.Module, layer: str) -> nn.Module:
    """The module at the path `layer`."""
    known = dict(model.named_modules(remove_duplicate=False))
    if layer not in known:
        raise OptionError(f"The model has no layer {layer!r}. {nearest(layer, [n for n in known if n])}")
    module: nn.Module = known[layer]
    return module


def reconstructable(model: nn.Module, layer: str) -> nn.Module:
    """The module at the path `layer`, if its inputs can be unfolded."""
    module = submodule(model, layer)
    if not patches.supported(module):
        raise FormatError(
            f"{layer}: {type(module).__name__} cannot be reconstructed; expected Linear, or Conv2d with zero padding "
            "given in numbers. Skip this layer."
        )
    return module


def _tuple(batch: Batch) -> tuple[Tensor, ...]:
    return batch if isinstance(batch, tuple) else (batch,)


def _run(model: nn.Module, args: tuple[Tensor, ...]) -> None:
    try:
        model(*args)
    except _Enough:
        return


@contextmanager
def _hooked(modules: dict[str, nn.Module], see: See) -> Iterator[None]:
    def hook(layer: str) -> Any:
        def call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            with torch._C.DisableTorchFunction():  # quantizers count the calls of the network's own forward
                see(layer, args[0] if args else next(iter(kwargs.values())), output)

        return call

    handles = [
        module.register_forward_hook(hook(layer), with_kwargs=True) for layer, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_called(model: nn.Module, layers: Sequence[str], calls: Counter[str]) -> None:
    for layer in layers:
        if not calls[layer]:
            raise StepError(
                f"{layer}: {type(model).__name__} never calls this layer, so it has no inputs to learn from. Skip it."
            )
