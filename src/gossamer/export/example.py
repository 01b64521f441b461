"""Example: one call of the model, as the tracer, the reference run and the packed file need it.

An example is a tensor, a numpy array, a tuple or list of them (one per positional argument of `forward`),
or a dict of them (keyword arguments). float64 arrays become float32, the type of nearly every model; a
float64 model keeps them.

Raises: ModelError when the example holds something else, or when the model cannot be called with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from ..errors import ExportError, ModelError
from ..methods.layer_inputs import evaluating


@dataclass(frozen=True)
class Example:
    """The arguments of one call, on the CPU; `names` are in the order of the graph's inputs."""

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    names: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, example: Any, input_names: Sequence[str] | None = None) -> Example:
        """Read an example; names come from `input_names`, else from the signature of `forward`."""
        wide = any(value.dtype == torch.float64 for value in model.parameters())
        if isinstance(example, Mapping):
            kwargs = {str(key): _tensor(value, f"example[{key!r}]", wide) for key, value in example.items()}
            args: tuple[Tensor, ...] = ()
            names = tuple(kwargs)
        else:
            values = example if isinstance(example, (tuple, list)) else (example,)
            args = tuple(_tensor(value, f"example[{at}]", wide) for at, value in enumerate(values))
            kwargs, names = {}, _positional(model, len(args))
        if not args and not kwargs:
            raise ModelError("the example is empty. Pass a tensor, a tuple of tensors, or a dict of tensors.")
        if input_names is not None:
            if len(input_names) != len(names) or len(set(input_names)) != len(names):
                raise ModelError(f"input_names {list(input_names)} must give {len(names)} different names.")
            names = tuple(input_names)
        return cls(args, kwargs, names)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.args, *self.kwargs.values())

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """{input name: array}, for the packed file."""
        return {name: value.numpy() for name, value in zip(self.names, self.tensors, strict=True)}

    def changed(self, function: Any) -> Example:
        """The same call with `function` applied to each tensor."""
        kwargs = {key: function(value) for key, value in self.kwargs.items()}
        return Example(tuple(function(value) for value in self.args), kwargs, self.names)

    def __str__(self) -> str:
        shapes = [
            f"{name}: {_described(value)}" for name, value in zip(self.names, self.tensors, strict=True)
        ]
        return ", ".join(shapes)


def call(model: nn.Module, example: Example) -> Any:
    """What the model returns in eval mode, without gradients; modes and random state stay as found."""
    device = next((value.device for value in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    placed = example.changed(lambda value: value.to(device))
    with evaluating(model):
        try:
            return model(*placed.args, **placed.kwargs)
        except Exception as error:
            raise ModelError(
                f"the model cannot be called on the example ({example}): {_where(model, error.__traceback__)}"
                f"{_first_line(error)}. Pass an example of the shape that forward expects."
            ) from error


def named_outputs(result: Any, output_names: Sequence[str] | None) -> dict[str, Tensor]:
    """{name: tensor} of whatever the model returns: a tensor, or tuples, lists and dicts of tensors."""
    if isinstance(result, Tensor):
        found = [("output", result)]
    else:
        leaves, _ = pytree.tree_flatten_with_path(result)
        found = [(_path_name(path), value) for path, value in leaves if value is not None]
    for name, value in found:
        if not isinstance(value, Tensor):
            raise ExportError(
                f"output {name!r} is {type(value).__name__}, but a graph returns tensors. Return a "
                "tensor, or a tuple, list or dict of tensors, from forward."
            )
    if not found:
        raise ExportError("the model returns no tensor. Return at least one from forward.")
    names = [name for name, _ in found]
    if output_names is not None:
        if len(output_names) != len(found) or len(set(output_names)) != len(found):
            raise ExportError(f"output_names {list(output_names)} must give {len(found)} different names.")
        names = list(output_names)
    return {name: value.detach().cpu() for name, (_, value) in zip(names, found, strict=True)}


def _tensor(value: Any, place: str, wide: bool) -> Tensor:
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise ModelError(f"{place}: an array of {array.dtype} cannot be an input; expected numbers.")
        value = torch.from_numpy(np.array(array))
    if not isinstance(value, Tensor):
        raise ModelError(f"{place}: received {type(value).__name__}, expected a tensor or a numpy array.")
    tensor: Tensor = value.detach().cpu().contiguous()
    return tensor.float() if tensor.dtype == torch.float64 and not wide else tensor


def _positional(model: nn.Module, count: int) -> tuple[str, ...]:
    parameters = inspect.signature(model.forward).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [item.name for item in parameters if item.kind in by_position]
    if any(item.kind == inspect.Parameter.VAR_POSITIONAL for item in parameters):
        names += [f"input{at}" for at in range(len(names), count)]
    if count > len(names):
        raise ModelError(
            f"the example has {count} tensors, but forward takes {len(names)} ({', '.join(names) or 'none'})."
            " A tuple or list is one tensor per argument."
        )
    return tuple(names[:count])


def _path_name(path: Sequence[Any]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    name = ".".join(keys)
    return f"output{name}" if not name or name[0].isdigit() else name


def _described(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _where(model: nn.Module, trace: TracebackType | None) -> str:
    """The innermost module that was running, with its own description (which shows what it expects)."""
    names = {id(module): name for name, module in model.named_modules()}
    inner = ""
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and names.get(id(module)):
            kind = module.extra_repr()
            plain = (
                type(module).__name__.removeprefix("Parametrized")
                if parametrize.is_parametrized(module)
                else ""
            )
            inner = f"layer {names[id(module)]!r} = {plain or type(module).__name__}({kind}): "
        trace = trace.tb_next
    return inner


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
