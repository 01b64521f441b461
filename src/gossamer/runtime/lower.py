"""lower: which layers of a packed network run on operators of ours, and the graph that says so.

Each file of LOWERINGS knows one stored format and names the layers it could run (see `lowering`). One is chosen when its
operator is expected to be faster than the dense kernel: for one sample, a few and many (for the batch alone where the network
or the caller fixes it) by LEAST, and by MARGIN for one of these. What is expected comes from `breakeven`; layers with few
weights stay dense unseen, for they take less time than asking. Everything else stays as it is.

    kernels = "auto"       as above
              "dense"      nothing is replaced
              a NAME       whatever that format allows is replaced, however slow (for tests and comparisons)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import artifact
from ..errors import OptionError, nearest
from . import build, graph, lower_binary, lower_sparse, lower_ternary, lower_ternary_int8, weights
from . import protobuf as pb
from .lowering import DENSE, Candidate, Choice, Lowering, Network, Rewrite

LOWERINGS: tuple[Lowering, ...] = (lower_sparse, lower_binary, lower_ternary, lower_ternary_int8)
KERNELS = ("auto", "dense", *(module.NAME for module in LOWERINGS))
MARGIN, LEAST = 0.85, 0.97  # of the dense time: what is measured once is not exact


@dataclass(frozen=True)
class Plan:
    """The graph to run, the initialisers it takes from outside, and where their arrays come from, one at a time."""

    model: bytes
    initializers: list[graph.Initializer]
    arrays: Callable[[], Iterator[np.ndarray]]
    choices: Mapping[str, Choice] = field(default_factory=dict)  # by the name of the node's first output

    @property
    def custom(self) -> bool:
        """True when the graph needs the operators of our library."""
        return graph.imports(self.model, build.DOMAIN)


def dense(reader: artifact.Reader) -> Plan:
    """The graph as it is, every weight decoded."""
    return Plan(reader.graph, weights.initializers(reader), lambda: weights.arrays(reader))


def plan(
    reader: artifact.Reader, *, threads: int | None = None, kernels: str = "auto", batch: int | None = None
) -> Plan:
    """The plan for an open file; `threads` None means one per core, `batch` the samples of a call, if all have as many."""
    if kernels not in KERNELS:
        raise OptionError(f"kernels: received {kernels!r}. {nearest(kernels, KERNELS)}")
    network = Network(reader, threads or os.cpu_count() or 1, batch)
    choices: dict[str, Choice] = {}
    taken: set[str] = set()  # by an earlier format
    rewrites = []
    for module in LOWERINGS:
        if kernels not in ("auto", module.NAME):
            continue
        chosen = []
        for candidate in module.find(network):
            if candidate.output in taken:
                continue
            if kernels == "auto" and candidate.weights < module.LEAST_WEIGHTS:
                why = f"with fewer than {module.LEAST_WEIGHTS:,} weights there is little to gain"
                choices.setdefault(candidate.output, Choice(DENSE, why))
                continue
            choice = _choice(candidate, forced=kernels != "auto")
            if choice.kernel == candidate.operator:
                choices[candidate.output] = choice
                chosen.append(candidate)
                taken.add(candidate.output)
            else:
                choices.setdefault(candidate.output, choice)
        if chosen:
            rewrites.append(module.rewrite(network, chosen))
    if rewrites:
        return _rewritten(network, rewrites, choices)
    original = dense(reader)
    return Plan(original.model, original.initializers, original.arrays, choices)


def _choice(candidate: Candidate, *, forced: bool) -> Choice:
    if forced:
        return Choice(candidate.operator, "asked for")
    times = candidate.times()
    ours, theirs = next(iter(times.values()))
    shares = {samples: here / there for samples, (here, there) in times.items()}
    worst = max(shares, key=lambda samples: shares[samples])
    if shares[worst] > LEAST or min(shares.values()) > MARGIN:
        why = f"{candidate.operator} is not expected to be faster for a batch of {worst}"
        return Choice(DENSE, why, theirs, ours)
    return Choice(candidate.operator, candidate.why(), ours, theirs)


def _rewritten(network: Network, rewrites: list[Rewrite], choices: Mapping[str, Choice]) -> Plan:
    reader = network.reader
    rest, body = graph.split(reader.graph)
    nodes = {index: made for rewrite in rewrites for index, made in rewrite.nodes.items()}
    given = {name: array for rewrite in rewrites for name, array in rewrite.arrays.items()}
    after = {index: made for rewrite in rewrites for index, made in rewrite.after.items()}
    written = graph.without_unread(memoryview(graph.with_nodes(body, nodes, after)))
    read = set(graph.used_names(memoryview(written)))
    kept = [name for name in reader.names if reader.outline(name).initializer in read]
    plain = [stub for stub in weights.initializers(reader) if stub.name in read]
    stubs = [graph.Initializer(name, array.shape, str(array.dtype)) for name, array in given.items()]

    def arrays() -> Iterator[np.ndarray]:
        for name in kept:
            yield np.ascontiguousarray(artifact.rebuild(reader.tensor(name)))
        yield from given.values()

    model = rest + build.opset(build.DOMAIN, 1) + pb.message(graph.MODEL_GRAPH, written)
    return Plan(model, [*plain, *stubs], arrays, choices)
