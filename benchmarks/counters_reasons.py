"""Why counters disagree: what each tool counts besides multiply-accumulates, and what it does not see, in numbers.

Every reason was read in the source of the tool, and is computed here from the calls of the layers; with all of them
a difference must be explained to the unit. Signs are those of (theirs - ours) in the tool's own unit of a MAC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gossamer.measure.profile import Profile

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU)
POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
FAST_PATH = "a frozen encoder is one operator (the fast path), which is not seen"
FUNCTIONS = ("relu", "relu6", "gelu", "silu", "softmax", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d")


@dataclass(frozen=True)
class Call:
    """One call of a layer; `places` is how often the model holds it."""

    module: nn.Module
    read: tuple[int, ...]
    made: tuple[int, ...]
    places: int

    @property
    def macs(self) -> int:
        """Of a linear layer or convolution."""
        return prod(self.made) * prod(self.module.weight.shape[1:])


@dataclass(frozen=True)
class Walk:
    """The calls of all layers, and the elements that functions of torch.nn.functional were called on by name."""

    calls: tuple[Call, ...]
    functions: Counter[str]
    ours: Profile

    def of(self, *kinds: type) -> list[Call]:
        """Calls of layers of exactly these types, as hooks by type find them."""
        return [call for call in self.calls if type(call.module) in kinds]

    def elements(self, *kinds: type) -> int:
        """Elements that those layers read."""
        return sum(prod(call.read) for call in self.of(*kinds))

    def macs_of(self, *parts: str) -> int:
        """Our MACs of operators whose name holds one of the parts."""
        return sum(
            operation.cost.macs
            for operation in self.ours.schedule.operations
            if any(part in operation.op for part in parts)
        )

    def macs_in(self, kind: str) -> int:
        """Our MACs of all layers of a kind."""
        return sum(row.cost.macs for row in self.ours.rows if row.kind == kind)


def walk(model: nn.Module, x: Tensor, ours: Profile) -> Walk:
    """Call the model once and write down its layers."""
    places = Counter(id(child) for module in model.modules() for child in module.children())
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[object, ...], output: object) -> None:
        read = next((value for value in args if isinstance(value, Tensor)), None)
        made = next(value for value in pytree.tree_leaves(output) if isinstance(value, Tensor))
        shape = tuple(read.shape) if read is not None else ()
        calls.append(Call(module, shape, tuple(made.shape), max(places[id(module)], 1)))

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.enable_grad(), called_by_name() as functions:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return Walk(tuple(calls), functions, ours)


@contextmanager
def called_by_name() -> Iterator[Counter[str]]:
    """Elements read by functions that are looked up in torch.nn.functional when they are called."""
    seen: Counter[str] = Counter()
    original = {name: getattr(F, name) for name in FUNCTIONS}

    def counting(name: str) -> Callable[..., Tensor]:
        def function(input: Tensor, *args: object, **kwargs: object) -> Tensor:
            seen[name] += input.numel()
            return original[name](input, *args, **kwargs)

        return function

    for name in FUNCTIONS:
        setattr(F, name, counting(name))
    try:
        yield seen
    finally:
        for name, function in original.items():
            setattr(F, name, function)


def biases(seen: Walk) -> int:
    """One addition per output of linear layers and convolutions with a bias, per place."""
    return sum(prod(c.made) * c.places for c in seen.of(nn.Linear, nn.Conv2d) if c.module.bias is not None)


def shared(seen: Walk, *, power: int) -> int:
    """A layer that is held in several places, counted `places ** power` times instead of once per call."""
    return sum(call.macs * (call.places**power - 1) for call in seen.of(nn.Linear, nn.Conv2d))


def steps(seen: Walk) -> int:
    """Time steps x layers x hidden units of all LSTMs."""
    return sum(prod(c.read[:2]) * c.module.num_layers * c.module.hidden_size for c in seen.of(nn.LSTM))


def thop(seen: Walk) -> dict[str, int]:
    fixed = sum(prod(call.made) for call in seen.of(nn.AvgPool2d))
    adaptive = sum(prod(call.read) + prod(call.made) for call in seen.of(nn.AdaptiveAvgPool2d))
    return {
        "norms count, 4 per element": 4 * seen.elements(*BATCH_NORMS, nn.LayerNorm),
        "average pools count": fixed + adaptive,
        "LSTM biases, gates and cell count, 16 per unit and step": 16 * steps(seen),
        "functions are not seen: attention": -seen.macs_of("scaled_dot_product") + inside(seen),
        "nn.MultiheadAttention is not seen, projections included": -seen.macs_in("MultiheadAttention"),
        "a shared layer gets a hook for every place, and is added at every place": shared(seen, power=2),
    }


def inside(seen: Walk) -> int:
    """Attention products that already belong to an nn.MultiheadAttention."""
    layers = {row.name for row in seen.ours.rows if row.kind == "MultiheadAttention"}
    products = [o for o in seen.ours.schedule.operations if "scaled_dot_product" in o.op]
    return sum(operation.cost.macs for operation in products if operation.layer in layers)


def fvcore(seen: Walk) -> dict[str, int]:
    projections = seen.macs_in("MultiheadAttention") - inside(seen) if fast_path(seen) else 0
    norms = 2 * seen.elements(*BATCH_NORMS) + 5 * seen.elements(nn.LayerNorm)
    return {
        "norms count, batch norm 2 and layer norm 5 per element": norms,
        "adaptive pools count, 1 per input": seen.elements(nn.AdaptiveAvgPool2d),
        "scaled_dot_product_attention is not seen": -seen.macs_of("scaled_dot_product"),
        "the projections of a frozen nn.MultiheadAttention are not seen": -projections,
        "LSTM is not seen": -seen.macs_of("rnn_layer"),
    }


def ptflops(seen: Walk) -> dict[str, int]:
    heads = [(call.made, call.module.num_heads) for call in seen.of(nn.MultiheadAttention)]
    norms = 2 * seen.elements(*BATCH_NORMS) + seen.elements(nn.LayerNorm)
    return {
        "biases count": biases(seen),
        "norms count, batch norm 2 and layer norm 1 per element": norms,
        "activation and pooling layers count, 1 per element": seen.elements(*ACTIVATIONS, *POOLS),
        "functions of torch.nn.functional count, 1 per element, also those that such layers call": sum(
            seen.functions.values()
        ),
        "LSTM biases, gates and cell count, 18 per unit and step": 18 * steps(seen),
        "functions are not seen: attention": -seen.macs_of("scaled_dot_product") + inside(seen),
        "MultiheadAttention counts biases, scaling and softmax": sum(
            batch * (5 * tokens * width + count * tokens**2) for (batch, tokens, width), count in heads
        ),
        "a shared layer is added at every place": shared(seen, power=1),
    }


def ptflops_aten(seen: Walk) -> dict[str, int]:
    if frozen := fast_path(seen):
        return {FAST_PATH: -frozen}
    projections = sum(4 * prod(call.made) for call in seen.of(nn.MultiheadAttention))
    layers = [call for call in seen.of(nn.Linear, nn.Conv2d) if call.module.bias is not None]
    return {
        "biases count": sum(prod(call.made) for call in layers) + projections,
        "scaled_dot_product_attention is not seen": -seen.macs_of("scaled_dot_product"),
        "LSTM is not seen": -seen.macs_of("rnn_layer"),
    }


def fast_path(seen: Walk) -> int:
    """Our MACs of encoder layers that torch runs as one operator: eval mode, and nothing to train."""
    layers = seen.of(nn.TransformerEncoderLayer)
    if not layers or any(p.requires_grad for call in layers for p in call.module.parameters()):
        return 0
    return seen.ours.macs


def torchinfo(seen: Walk) -> dict[str, int]:
    leaves = [call for call in seen.calls if not list(call.module.children())]
    linear, convolutions = seen.of(nn.Linear), seen.of(nn.Conv2d)
    others = [c for c in leaves if type(c.module) not in (nn.Linear, nn.Conv2d, nn.Embedding, nn.LSTM)]
    weighted = [
        (call, value.numel())
        for call in others
        for name, value in call.module.named_parameters()
        if name in ("weight", "bias")
    ]
    once = sum(call.macs - call.macs // prod(call.made[1:-1]) for call in linear if len(call.made) > 2)
    rows = sum(prod(call.made) // prod(call.made[1:-1]) for call in linear if call.module.bias is not None)
    positions = sum(prod(call.made) for call in convolutions if call.module.bias is not None)
    return {
        "biases count": rows + positions + 8 * steps(seen),
        "norms count, once per parameter": sum(call.made[0] * numel for call, numel in weighted),
        "an embedding counts its whole table": sum(
            call.made[0] * call.module.weight.numel() for call in seen.of(nn.Embedding)
        ),
        "a linear layer on tokens counts one token": -once,
        "functions are not seen: attention": -seen.macs_of("scaled_dot_product") + inside(seen),
        "nn.MultiheadAttention is not seen, projections included": -seen.macs_in("MultiheadAttention"),
    }


def torch_counter(seen: Walk) -> dict[str, int]:
    if frozen := fast_path(seen):
        return {FAST_PATH: -frozen}
    return {
        "scaled_dot_product_attention on a CPU is not seen": -seen.macs_of("scaled_dot_product"),
        "LSTM is not seen": -seen.macs_of("rnn_layer"),
    }


REASONS: dict[str, Callable[[Walk], dict[str, int]]] = {
    "thop": thop,
    "fvcore": fvcore,
    "ptflops": ptflops,
    "ptflops, aten": ptflops_aten,
    "torchinfo": torchinfo,
    "torch": torch_counter,
}
