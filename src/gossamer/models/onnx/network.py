"""network: an ONNX graph as a torch module, run node by node.

Layers and weights are children under readable names, so steps find them; everything else is a call of a torch function.
The inputs of `forward` have the names of the graph's; one output is returned as a tensor, several as a dict by name.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .calling import call, signature
from .values import Kernel, Known


@dataclass(frozen=True)
class Value:
    """An argument that is computed: an input of the network, or an output of a step."""

    name: str


@dataclass(frozen=True)
class Weight:
    """An argument that is a parameter or buffer of the network."""

    path: str


@dataclass(frozen=True)
class Program:
    """Steps in order, and the arguments that are their results."""

    steps: tuple[Step, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Step:
    """One node: a layer by its path, a function, or two branches; `known` is the same for known numbers.

    arguments: Value, Weight, or a constant as the function takes it; releases: values that nobody reads afterwards.
    """

    place: str
    arguments: tuple[Any, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    layer: str = ""
    function: Kernel | None = None
    known: Kernel | None = None
    before: Callable[..., Tensor] | None = None
    after: Callable[..., Tensor] | None = None
    branches: tuple[Program, Program] | None = None
    releases: tuple[str, ...] = ()


class OnnxNetwork(nn.Module):
    """A network that was loaded from an ONNX file (see `from_onnx`)."""

    program: Program
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    input_shape: tuple[int, ...]  # only where the file tells the sizes of its one input

    def run(self, *given: Any) -> Any:
        """The outputs for inputs in the order of the graph."""
        device = next((value.device for value in given if isinstance(value, Tensor)), None)
        values = dict(zip(self.input_names, given, strict=True))
        self._follow(self.program.steps, values, device)
        found = [_tensor(self._argument(each, values), device) for each in self.program.outputs]
        return found[0] if len(found) == 1 else dict(zip(self.output_names, found, strict=True))

    def _follow(self, steps: Sequence[Step], values: dict[str, Any], device: torch.device | None) -> None:
        for step in steps:
            given = [self._argument(each, values) for each in step.arguments]
            try:
                result = self._result(step, given, values, device)
            except Exception as error:
                error.add_note(f"at {step.place} of the ONNX graph")
                raise
            made = result if isinstance(result, tuple) else (result,)
            for name, value in zip(step.outputs, made, strict=False):
                values[name] = value
            for name in step.releases:
                del values[name]

    def _result(
        self, step: Step, given: list[Any], values: dict[str, Any], device: torch.device | None
    ) -> Any:
        if step.branches is not None:
            return self._branch(step, given[0], values, device)
        if step.layer:
            tensors = [_tensor(each, device) for each in given]
            x = step.before(*tensors) if step.before is not None else tensors[0]
            y = self.get_submodule(step.layer)(x, *tensors[1:])
            return step.after(y, tensors[0]) if step.after is not None else y
        if step.known is not None and all(each is None or isinstance(each, Known) for each in given):
            taken = signature(step.known)
            options = {
                name: value
                for name, value in step.attributes.items()
                if name in taken.keywords or name in taken.names
            }
            answer = step.known(*given, **options)
            if answer is not None:
                return answer
        assert step.function is not None
        return call(
            step.function,
            given,
            step.attributes,
            opset=self.opset,
            outputs=len(step.outputs),
            device=device,
        )

    def _branch(
        self, step: Step, condition: Any, values: dict[str, Any], device: torch.device | None
    ) -> tuple[Any, ...]:
        assert step.branches is not None
        number = condition.values.item() if isinstance(condition, Known) else condition
        taken = step.branches[0 if bool(number) else 1]
        inner = dict(values)
        self._follow(taken.steps, inner, device)
        return tuple(self._argument(each, inner) for each in taken.outputs)

    def _argument(self, argument: Any, values: dict[str, Any]) -> Any:
        if isinstance(argument, Value):
            return values[argument.name]
        if isinstance(argument, Weight):
            path, _, leaf = argument.path.rpartition(".")
            return getattr(self.get_submodule(path), leaf)
        return argument


def network_class(inputs: Sequence[str]) -> type[OnnxNetwork]:
    """OnnxNetwork with a `forward` whose parameters are named like the inputs, as torch's tools read them."""
    names: list[str] = []
    for name in inputs:
        plain = re.sub(r"\W", "_", name)
        plain = f"input_{plain}" if not plain.isidentifier() or keyword.iskeyword(plain) else plain
        while plain in (*names, "self"):
            plain += "_"
        names.append(plain)
    space: dict[str, Any] = {}
    listed = ", ".join(names)
    exec(f"def forward(self, {listed}):\n    return self.run({listed})", space)
    return type("OnnxNetwork", (OnnxNetwork,), {"forward": space["forward"], "__module__": __name__})


def _tensor(value: Any, device: torch.device | None) -> Any:
    return value.tensor(device) if isinstance(value, Known) else value
