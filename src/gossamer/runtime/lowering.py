"""lowering: what a file that runs one stored format on an operator of ours gives to `lower`.

Such a file (lower_sparse, lower_binary, ...) has

    NAME                       the value of `kernels=` that forces it
    LEAST_WEIGHTS              layers with fewer stay dense unseen when nothing is forced
    find(network)              the layers it could replace, as candidates
    rewrite(network, chosen)   the nodes and arrays that take their place, for the candidates that were chosen

A network is what all of them see of an open file: its nodes in order, which tensor each name stands for, who reads a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from .. import artifact
from ..artifact.outline import TensorOutline
from . import breakeven, graph

DENSE = "onnxruntime dense"


@dataclass(frozen=True)
class Choice:
    """What runs a layer, why, and what it and the other kernel are expected to take."""

    kernel: str
    why: str
    ms: float | None = None
    other_ms: float | None = None


@dataclass(frozen=True)
class Rewrite:
    """Nodes that stand in the place of others, by index, and the initialisers they read.

    Nodes that are no longer read afterwards, and weights that no node reads, need not be named: they go by themselves.
    """

    nodes: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


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
    def batch(self) -> int | None:
        """The number of samples, where the graph fixes it."""
        return graph.fixed_batch(self.reader.graph)

    def samples(self, *, fixed: bool = True) -> tuple[int, ...]:
        """The numbers of samples for which a kernel must not be slower; `fixed`: the graph's own says it all."""
        return (self.batch,) if self.batch and fixed else (1, max(breakeven.SAMPLES))
