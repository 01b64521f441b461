"""names: where a layer or weight of an ONNX file lives in the torch module.

Candidates, the best first: the name of the weight without its ending (conv1.weight -> conv1), the module that the
exporter wrote beside the node, the name of the bias, the name of the node (/layer1/conv1/Conv -> layer1.conv1), and
last the operator with a number (conv2d_3). Names that exporters number by themselves (onnx::MatMul_52, val_7) say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

ENDING = re.compile(
    r"[._/](weights?(_?t|_transposed)?|bias(es)?|kernel|gamma|beta|scale|slope|table|w|b)(_\d+)?$",
    re.IGNORECASE,
)
INTEGER = re.compile(r"_(quantized|q|int8|scale)$")  # what quantizers add to a weight's name
MACHINE = re.compile(
    r"(onnx::.*|(val|t|gather|view|reshape|transpose|permute|unsqueeze|squeeze|clone|expand|const\w*|node_\w+|\w+_output)"
    r"(_\d+)*|[_a-z]?\d+)",
    re.IGNORECASE,
)
TAIL = re.compile(r"(:\d+|/(ReadVariableOp|Conv2D|MatMul|BiasAdd|resource|read)(_\d+)?)+$", re.IGNORECASE)


class Scope(nn.Module):
    """Holds layers and weights under one part of their name."""


class Names:
    """The places of one network; `root` is the module that holds them."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._taken: set[str] = set()
        self._leaves: set[str] = set()

    def layer(self, *, scope: str, weight: str, bias: str, node: str, op: str, number: int) -> str:
        """The path for a layer."""
        candidates = [_stem(weight), scope, _stem(bias), _traced(node), f"{_snake(op)}_{number}"]
        return self._free(candidates)

    def weight(self, label: str, number: int) -> str:
        """The path for a weight that belongs to no layer."""
        return self._free([label if label and not MACHINE.fullmatch(label) else "", f"constant_{number}"])

    def place(self, path: str) -> tuple[nn.Module, str]:
        """(the module that holds what is at a path, the last part of the path); scopes are made as needed."""
        *parents, leaf = path.split(".")
        holder = self.root
        for parent in parents:
            if parent not in holder._modules:
                holder.add_module(parent, Scope())
            inner = holder._modules[parent]
            assert inner is not None
            holder = inner
        return holder, leaf

    def _free(self, candidates: Iterable[str]) -> str:
        for candidate in candidates:
            path = self._clean(candidate)
            if path and path not in self._taken:
                break
        number, plain = 2, path
        while path in self._taken:
            path, number = f"{plain}_{number}", number + 1
        parts = path.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        if self._leaves.intersection(above):  # a layer holds no other layers
            return self._free([path.replace(".", "_")])
        self._taken.update(above, [path])
        self._leaves.add(path)
        return path

    def _clean(self, name: str) -> str:
        """A path of identifiers (numbers may stand alone) that hide nothing of a module."""
        name = TAIL.sub("", name).replace("/", ".")
        parts = [re.sub(r"\W", "_", part) for part in name.split(".")]
        parts = [part for part in parts if part.strip("_")]
        hidden = [self.root, *[_EMPTY] * len(parts)]
        return ".".join(
            f"{part}_" if hasattr(holder, part) and part not in holder._modules else part
            for holder, part in zip(hidden, parts, strict=False)
        )


_EMPTY = nn.Module()


def _stem(label: str) -> str:
    """The layer that a weight's name speaks of."""
    if not label or MACHINE.fullmatch(label):
        return ""
    return ENDING.sub("", INTEGER.sub("", TAIL.sub("", label)))


def _traced(node: str) -> str:
    """The path in a node's name as torch's first exporter wrote it: /encoder/encoder.0/fc/MatMul -> encoder.0.fc."""
    if not node.startswith("/"):
        return ""
    path: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        parts = part.split(".")
        inner = next((end for end in range(len(path), 0, -1) if path[-end:] == parts[:end]), 0)
        path += parts[inner:]
    return ".".join(path)


def _snake(op: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", op).lower()
