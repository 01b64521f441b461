"""Calls: what one forward of a network computes, as a list of calls of torch functions and what feeds what.

A network is followed where it calls torch (TorchFunctionMode): functional additions, modules used twice and code
that no tracer can read are all calls in an order. Calls that compute are numbered; those that only move values
(reshape, transpose, slices, ...) pass the value on, and so does a batch norm, because it folds into the call before it.
Weights that carry a format are decoded outside of the count.

    kinds   conv  linear  matmul  add  mul  cat  mean  avg_pool  max_pool  resize  activation  norm  attention  other

The order of the kinds must be the same in every forward: a network that chooses its path by values cannot be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

KINDS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"), "conv"),
    "linear": "linear",
    **dict.fromkeys(("matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "__matmul__"), "matmul"),
    **dict.fromkeys(("add", "add_", "__add__", "__iadd__", "__radd__", "sub", "__sub__", "__rsub__"), "add"),
    **dict.fromkeys(("mul", "mul_", "__mul__", "__imul__", "__rmul__"), "mul"),
    **dict.fromkeys(("cat", "concat", "concatenate"), "cat"),
    "mean": "mean",
    **dict.fromkeys(("avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool1d"), "avg_pool"),
    **dict.fromkeys(("max_pool2d", "max_pool1d", "boolean_dispatch", "adaptive_max_pool2d"), "max_pool"),
    "interpolate": "resize",
    **dict.fromkeys(("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_min"), "activation"),
    **dict.fromkeys(
        ("leaky_relu", "sigmoid", "silu", "gelu", "tanh", "hardswish", "softmax", "elu"), "curve"
    ),
    **dict.fromkeys(("hardsigmoid", "prelu", "mish", "softplus", "log_softmax", "glu"), "curve"),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), "norm"),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward"), "attention"),
    **dict.fromkeys(("embedding", "lstm", "gru"), "other"),
}
BEHIND = "batch_norm"  # what Follow calls a batch norm; a layer norm is a call of its own, of kind "norm"
NORMS = ("batch_norm", "channel_affine")  # the second is what a norm becomes that cannot fold (blocks.Affine)
MOVES = frozenset(
    (
        *(
            "view",
            "reshape",
            "flatten",
            "transpose",
            "permute",
            "squeeze",
            "unsqueeze",
            "contiguous",
            "clone",
        ),
        *(
            "__getitem__",
            "chunk",
            "split",
            "unbind",
            "expand",
            "expand_as",
            "narrow",
            "select",
            "swapaxes",
            "t",
        ),
        *(
            "pixel_shuffle",
            "pad",
            "dropout",
            "dropout2d",
            "detach",
            "to",
            "float",
            "movedim",
            "roll",
            "repeat",
        ),
        *(
            "unflatten",
            "view_as",
            "reshape_as",
            "alpha_dropout",
            "feature_dropout",
            "type_as",
            "channel_shuffle",
        ),
    )
)


@dataclass(frozen=True)
class Value:
    """A tensor of the forward: made by call `call` (-1: an input of the network), perhaps moved since."""

    call: int
    moved: bool = False


@dataclass(frozen=True)
class Call:
    """One computing call: the values it reads in order (None: a weight or constant), and where it happened."""

    index: int
    kind: str
    function: str
    layer: str
    reads: tuple[Value | None, ...]
    weighted: bool  # reads a parameter of its layer
    shape: tuple[int, ...]
    norm: str = ""  # the module of a batch norm that follows directly


@dataclass(frozen=True)
class Calls:
    """The calls of one forward, and the values it returned."""

    calls: tuple[Call, ...]
    inputs: int
    outputs: tuple[Value, ...]

    def readers(self, call: int) -> list[Call]:
        """The calls that read the output of `call`, moved or not."""
        return [c for c in self.calls if any(v is not None and v.call == call for v in c.reads)]


class Follow(TorchFunctionMode):
    """Numbers computing calls; `output` may replace what a call returned, or the batch norm behind it (BEHIND)."""

    def __init__(self, output: Callable[[int, str, Any], Any]) -> None:
        super().__init__()
        self.count = 0
        self._output = output

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = _name(func)
        if name in NORMS:
            return self._output(self.count - 1, BEHIND, result)
        kind = KINDS.get(name)
        if kind is None or not _computes(result):
            return result
        index, self.count = self.count, self.count + 1
        return self._output(index, kind, result)


class Record(TorchFunctionMode):
    """Writes the calls of one forward down, with what feeds what."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        self._parameters = {id(value) for value in model.parameters()}
        self._layers: list[str] = [""]
        self._values: dict[int, Value] = {}
        self._alive: list[Any] = []  # an id may be given again to a tensor that comes after one that died

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = _name(func)
        kind = KINDS.get(name)
        read = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if kind is not None and _computes(result):
            index = len(self.calls)
            reads = tuple(self._values.get(id(value)) for value in read)
            weighted = kind in ("conv", "linear") or any(id(value) in self._parameters for value in read)
            shape = tuple(made[0].shape)
            self.calls.append(Call(index, kind, name, self._layers[-1], reads, weighted, shape))
            self._keep(made, Value(index))
        elif (name in MOVES or name in NORMS) and read:
            source = self._values.get(id(read[0]))
            if source is not None:
                self._keep(made, Value(source.call, moved=source.moved or name not in NORMS))
            if name in NORMS and source is not None and source.call == len(self.calls) - 1 >= 0:
                self.calls[source.call] = replace(self.calls[source.call], norm=self._layers[-1])
        return result

    def known(self, value: Tensor) -> Value | None:
        """The value that a tensor of the forward is."""
        return self._values.get(id(value))

    def start(self, inputs: list[Tensor]) -> None:
        """Give the inputs of the network their number: -1, -2, ..."""
        for at, value in enumerate(inputs):
            self._keep([value], Value(-1 - at))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Know which module runs; the hooks are torch's global ones and touch no module."""
        before = nn.modules.module.register_module_forward_pre_hook(
            lambda module, args: self._layers.append(self._names.get(id(module), self._layers[-1]))
        )
        after = nn.modules.module.register_module_forward_hook(
            lambda module, args, output: (self._layers.pop(), None)[1], always_call=True
        )
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _keep(self, tensors: list[Tensor], value: Value) -> None:
        for tensor in tensors:
            self._values[id(tensor)] = value
            self._alive.append(tensor)


def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Calls:
    """The calls of one forward in eval mode, without gradients; nothing of the model changes."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    recorder = Record(model)
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
    recorder.start(leaves)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), recorder.following(), recorder:
            result = model(*args, **(kwargs or {}))
    finally:
        for module, mode in modes:
            module.training = mode
    made = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    found = (recorder.known(leaf) for leaf in made)
    outputs = tuple(value for value in found if value is not None)
    return Calls(tuple(recorder.calls), len(leaves), outputs)


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", ""))


def _computes(result: Any) -> bool:
    """Whether a call makes real numbers: sizes, masks and token numbers are not quantized."""
    leaf = next((leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)), None)
    return leaf is not None and leaf.is_floating_point()
