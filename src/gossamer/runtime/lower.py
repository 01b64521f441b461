"""lower: which layer of a packed network runs on an operator of ours, and the graph that says so.

A MatMul or Gemm becomes SparseGemm when its weight, used nowhere else, is stored as sparse(values=codebook) of at most 16
values and the operator is expected to be faster than the dense product by MARGIN, for one sample and for many (for the
batch alone where the network fixes it), even if no input were zero. What is expected comes from `breakeven`; layers below
LEAST_WEIGHTS weights stay dense unseen, for they take less time than asking. Everything else stays as it is.

    kernels = "auto"     as above
              "dense"    nothing is replaced
              "sparse"   whatever can be replaced is, however slow (for tests and comparisons)
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from .. import artifact
from ..artifact.outline import TensorOutline
from ..errors import OptionError, nearest
from . import breakeven, build, graph, sparse, weights
from . import protobuf as pb

KERNELS = ("auto", "dense", "sparse")
MARGIN = 0.85  # of the dense time: what is measured once is not exact
LEAST_WEIGHTS = 2**20


@dataclass(frozen=True)
class Choice:
    """What runs a layer, why, and what it and the other kernel are expected to take."""

    kernel: str
    why: str
    ms: float | None = None
    other_ms: float | None = None


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


@dataclass(frozen=True)
class _Layer:
    """A node that could be replaced."""

    index: int
    tensor: TensorOutline
    transposed: bool  # stored as [inputs, outputs]
    bias: str
    node: graph.Node


def dense(reader: artifact.Reader) -> Plan:
    """The graph as it is, every weight decoded."""
    return Plan(reader.graph, weights.initializers(reader), lambda: weights.arrays(reader))


def plan(reader: artifact.Reader, *, threads: int | None = None, kernels: str = "auto") -> Plan:
    """The plan for an open file; `threads` None means one per core."""
    if kernels not in KERNELS:
        raise OptionError(f"kernels: received {kernels!r}. {nearest(kernels, KERNELS)}")
    layers = [] if kernels == "dense" else _layers(reader)
    if kernels == "auto":
        layers = [layer for layer in layers if math.prod(layer.tensor.node.shape) >= LEAST_WEIGHTS]
    if not layers:
        return dense(reader)
    threads = threads or os.cpu_count() or 1
    batch = graph.fixed_batch(reader.graph)
    chosen: dict[str, tuple[_Layer, sparse.SparseWeight]] = {}
    choices: dict[str, Choice] = {}
    for layer in layers:
        stored = reader.tensor(layer.tensor.name).stored
        fields = sparse.of(stored, transposed=layer.transposed, streams=threads)
        choice = _choice(layer, fields, threads, batch, forced=kernels == "sparse")
        choices[layer.node.outputs[0]] = choice
        if choice.kernel == sparse.OPERATOR:
            chosen[layer.tensor.initializer] = (layer, fields)
    if not chosen:
        original = dense(reader)
        return Plan(original.model, original.initializers, original.arrays, choices)
    return _replaced(reader, chosen, choices)


def _choice(
    layer: _Layer, fields: sparse.SparseWeight, threads: int, batch: int | None, *, forced: bool
) -> Choice:
    if forced:
        return Choice(sparse.OPERATOR, "asked for")
    table, size = breakeven.table(threads), fields.rows * fields.columns
    samples = (batch,) if batch and layer.node.op == "Gemm" else (1, max(breakeven.SAMPLES))
    times = {n: (table.sparse_ms(fields.bytes.size, n), table.dense_ms(size, n)) for n in samples}
    ours, theirs = times[samples[0]]
    for n, (coded, plain) in times.items():
        if coded > MARGIN * plain:
            why = f"SparseGemm is not expected to be faster for a batch of {n}"
            return Choice("onnxruntime dense", why, theirs, ours)
    saved = 1 - layer.tensor.node.inner["values"].shape[0] / size
    why = f"{saved:.1%} zeros, and dense is expected to be slower"
    return Choice(sparse.OPERATOR, why, ours, theirs)


def _layers(reader: artifact.Reader) -> list[_Layer]:
    """Every node that could be replaced."""
    outlines = {item.initializer: item for item in map(reader.outline, reader.names)}
    if not any(sparse.fits(item.node) for item in outlines.values()):
        return []
    _, body = graph.split(reader.graph)
    uses = Counter(graph.used_names(body))
    found = []
    for index, (node, attributes) in enumerate(graph.nodes_with_attributes(body)):
        tensor = outlines.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if tensor is None or not sparse.fits(tensor.node) or uses[tensor.initializer] != 1:
            continue
        if tensor.dtype != "float32" or node.domain not in ("", "ai.onnx"):
            continue
        outputs_last = node.op == "MatMul"  # the graph's weight is [inputs, outputs]
        bias = ""
        if node.op == "Gemm":
            if attributes is None or not _plain(attributes):
                continue
            outputs_last = not attributes.get("transB", 0)
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
        elif node.op != "MatMul":
            continue
        shape = tensor.node.shape
        turned = tensor.perm is not None and tuple(tensor.perm) == (1, 0)
        transposed = outputs_last != turned
        outputs = shape[1] if transposed else shape[0]
        if bias and (bias not in outlines or outlines[bias].node.shape != (outputs,)):
            continue
        found.append(_Layer(index, tensor, transposed, bias, node))
    return found


def _plain(attributes: Mapping[str, float]) -> bool:
    """True for the attributes of a Gemm that computes x W + b."""
    return (
        attributes.get("alpha", 1.0) == 1.0
        and attributes.get("beta", 1.0) == 1.0
        and not attributes.get("transA", 0)
    )


def _replaced(
    reader: artifact.Reader,
    chosen: Mapping[str, tuple[_Layer, sparse.SparseWeight]],
    choices: Mapping[str, Choice],
) -> Plan:
    nodes, stubs = {}, []
    for name, (layer, fields) in chosen.items():
        given = [f"{name}.{field}" for field in sparse.NAMES]
        inputs = [layer.node.inputs[0], *given, *([layer.bias] if layer.bias else [])]
        label = layer.tensor.name
        nodes[layer.index] = build.node(
            sparse.OPERATOR, inputs, layer.node.outputs, name=label, domain=build.DOMAIN
        )
        stubs += [
            graph.Initializer(stub, array.shape, str(array.dtype))
            for stub, array in zip(given, fields.arrays, strict=True)
        ]
    kept = [name for name in reader.names if reader.outline(name).initializer not in chosen]
    plain = [stub for stub in weights.initializers(reader) if stub.name not in chosen]

    def arrays() -> Iterator[np.ndarray]:
        for name in kept:
            yield np.ascontiguousarray(artifact.rebuild(reader.tensor(name)))
        for _, fields in chosen.values():
            yield from fields.arrays

    rest, body = graph.split(reader.graph)
    model = rest + build.opset(build.DOMAIN, 1) + pb.message(graph.MODEL_GRAPH, graph.with_nodes(body, nodes))
    return Plan(model, [*plain, *stubs], arrays, choices)
