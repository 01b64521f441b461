"""lowering: what a file that runs one stored format on an operator of ours gives to `lower`.

Such a file (lower_sparse, lower_binary, ...) has

    NAME                       the value of `kernels=` that forces it
    LEAST_WEIGHTS              layers with fewer stay dense unseen when nothing is forced
    find(network)              the layers it could replace, as candidates
    rewrite(network, chosen)   the nodes and arrays that take their place, for the candidates that were chosen

A network is what all of them see of an open file: its nodes in order, which tensor each name stands for, who reads a name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import artifact
from ..artifact.outline import TensorOutline
from . import breakeven, graph, shapes

DENSE = "onnxruntime dense"
SMALL = 2**16  # values of an initialiser that is worth decoding to look at


@dataclass(frozen=True)
class Choice:
    """What runs a layer, why, and what it and the other kernel are expected to take."""

    kernel: str
    why: str
    ms: float | None = None
    other_ms: float | None = None


@dataclass(frozen=True)
class Rewrite:
    """Nodes that stand in the place of others, by index, nodes that come after some, and the initialisers they read.

    Nodes that are no longer read afterwards, and weights that no node reads, need not be named: they go by themselves.
    """

    nodes: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    after: Mapping[int, Sequence[bytes]] = field(default_factory=dict)


class Candidate(Protocol):
    """A layer that an operator of ours could run."""

    @property
    def operator(self) -> str:
        """The operator's name."""

    @property
    def output(self) -> str:
        """The first output of the node that holds the weight."""

    @property
    def weights(self) -> int:
        """How many weights it has, zeros included."""

    def times(self) -> Mapping[int, tuple[float, float]]:
        """Expected milliseconds, here and dense, for each number of samples that must be no slower."""

    def why(self) -> str:
        """What speaks for the operator, for `explain`."""


class Lowering(Protocol):
    """A module as described above."""

    @property
    def NAME(self) -> str: ...

    @property
    def LEAST_WEIGHTS(self) -> int: ...

    def find(self, network: Network) -> Sequence[Any]: ...

    def rewrite(self, network: Network, chosen: Sequence[Any]) -> Rewrite: ...


@dataclass(frozen=True)
class Network:
    """An open file as lowerings see it."""

    reader: artifact.Reader
    threads: int
    asked: int | None = None  # samples of a call, where the caller says so

    @cached_property
    def body(self) -> memoryview:
        """The GraphProto."""
        return graph.split(self.reader.graph)[1]

    @cached_property
    def nodes(self) -> list[tuple[graph.Node, graph.Attributes]]:
        """The nodes in order."""
        return list(graph.nodes_with_attributes(self.body))

    @cached_property
    def tensors(self) -> dict[str, TensorOutline]:
        """The stored tensors by initialiser; nothing is decoded."""
        return {item.initializer: item for item in map(self.reader.outline, self.reader.names)}

    @cached_property
    def uses(self) -> Counter[str]:
        """How often each name is read, the outputs of the graph included."""
        return Counter(graph.used_names(self.body))

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """The nodes that read a name, each as often as it does; inner graphs and outputs only count as `uses`."""
        found: dict[str, list[int]] = {}
        for index, (node, _) in enumerate(self.nodes):
            for name in node.inputs:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def producers(self) -> dict[str, int]:
        """The node that gives a name."""
        return {name: index for index, (node, _) in enumerate(self.nodes) for name in node.outputs if name}

    @cached_property
    def shapes(self) -> dict[str, shapes.Shape]:
        """What is known of the sizes of each name."""
        return shapes.infer(graph.input_shapes(self.body), self.nodes, self._sizes, self.constant)

    @cached_property
    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self._constants.items()} | {
            item.initializer: tuple(
                item.node.shape[axis] for axis in item.perm or range(len(item.node.shape))
            )
            for item in self.tensors.values()
        }

    @cached_property
    def _constants(self) -> dict[str, np.ndarray]:
        return graph.constants(self.body)

    def constant(self, name: str) -> np.ndarray | None:
        """The values of a small initialiser of float32 or int64, inside the graph or stored, reshaped or not; else None."""
        held = self.small(name)
        return held if held is not None and held.dtype in (np.float32, np.int64) else None

    def small(self, name: str) -> np.ndarray | None:
        """The same of integers of 8 and 32 bits too."""
        node = self.nodes[self.producers[name]][0] if name in self.producers else None
        if node is None:
            return self._initial(name)
        if node.op != "Reshape" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            return None
        values, target = map(self._initial, node.inputs)
        if values is None or target is None:
            return None
        known = [size for size in shapes.reshaped(values.shape, target) or () if size is not None]
        return (
            values.reshape(known) if math.prod(known) == values.size and len(known) == target.size else None
        )

    def _initial(self, name: str) -> np.ndarray | None:
        if name in self._constants:
            return self._constants[name]
        item = self.tensors.get(name)
        if item is None or item.node.numel > SMALL:
            return None
        return artifact.rebuild(self.reader.tensor(item.name))

    def only_reader(self, name: str) -> int | None:
        """The node that reads a name, if it is the only one and nothing else does."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and self.uses[name] == 1 else None

    @cached_property
    def batch(self) -> int | None:
        """The number of samples, where the caller or the graph fixes it."""
        return self.asked or graph.fixed_batch(self.reader.graph)

    def samples(self, *, fixed: bool = True) -> tuple[int, ...]:
        """The numbers of samples for which a kernel must not be slower; `fixed`: the graph's own says it all."""
        return (self.batch,) if self.batch and fixed else (1, 4, 64)

    def traffic(self, weights: int) -> int:
        """What the other weights do to the caches between two calls of a layer with so many (see `breakeven`)."""
        return breakeven.level(self._bytes - 4 * weights)

    @cached_property
    def _bytes(self) -> int:
        return sum(math.prod(item.node.shape) * graph.ITEMSIZE[item.dtype] for item in self.tensors.values())
