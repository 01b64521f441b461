"""lower_sparse: a MatMul or Gemm whose weight is stored as sparse(values=codebook) of at most 16 values -> SparseGemm.

The weight must be used nowhere else, and a Gemm must compute x W + b. Expected times suppose that no input is zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..artifact.outline import TensorOutline
from . import breakeven, build, graph, sparse
from .lowering import Network, Rewrite

NAME = "sparse"
LEAST_WEIGHTS = 2**18
DENSITY = 0.1  # of the matrices that are measured


@dataclass(frozen=True)
class Product:
    """A node that could be replaced."""

    network: Network
    index: int
    node: graph.Node
    tensor: TensorOutline
    transposed: bool  # stored as [inputs, outputs]
    bias: str

    operator = sparse.OPERATOR

    @property
    def output(self) -> str:
        return self.node.outputs[0]

    @property
    def weights(self) -> int:
        return math.prod(self.tensor.node.shape)

    @cached_property
    def fields(self) -> sparse.SparseWeight:
        """The inputs of the operator."""
        stored = self.network.reader.tensor(self.tensor.name).stored
        return sparse.of(stored, transposed=self.transposed, streams=self.network.threads)

    def times(self) -> Mapping[int, tuple[float, float]]:
        threads, traffic = self.network.threads, self.network.traffic(self.weights)
        ours = breakeven.curve(NAME, threads, _measured, traffic=traffic)
        dense = breakeven.dense(threads, traffic=traffic)
        counts = self.network.samples(fixed=self.node.op == "Gemm")
        return {n: (ours.ms(self.fields.bytes.size, n), dense.ms(self.weights, n)) for n in counts}

    def why(self) -> str:
        zeros = 1 - self.tensor.node.inner["values"].shape[0] / self.weights
        return f"{zeros:.1%} zeros, and dense is expected to be slower"


def find(network: Network) -> list[Product]:
    """Every node that could be replaced."""
    tensors = network.tensors
    if not any(sparse.fits(item.node) for item in tensors.values()):
        return []
    found = []
    for index, (node, attributes) in enumerate(network.nodes):
        tensor = tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if tensor is None or not sparse.fits(tensor.node) or network.uses[tensor.initializer] != 1:
            continue
        if tensor.dtype != "float32" or node.domain not in ("", "ai.onnx"):
            continue
        outputs_last = node.op == "MatMul"  # the graph's weight is [inputs, outputs]
        bias = ""
        if node.op == "Gemm":
            if not plain(attributes.numbers):
                continue
            outputs_last = not attributes.numbers.get("transB", 0)
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
        elif node.op != "MatMul":
            continue
        shape = tensor.node.shape
        turned = tensor.perm is not None and tuple(tensor.perm) == (1, 0)
        transposed = outputs_last != turned
        outputs = shape[1] if transposed else shape[0]
        if bias and (bias not in tensors or tensors[bias].node.shape != (outputs,)):
            continue
        found.append(Product(network, index, node, tensor, transposed, bias))
    return found


def plain(numbers: Mapping[str, float]) -> bool:
    """True for the attributes of a Gemm that computes x W + b."""
    return (
        numbers.get("alpha", 1.0) == 1.0 and numbers.get("beta", 1.0) == 1.0 and not numbers.get("transA", 0)
    )


def rewrite(network: Network, chosen: Sequence[Product]) -> Rewrite:
    """One node each, and its fields as initialisers NAME.FIELD."""
    nodes, arrays = {}, {}
    for item in chosen:
        given = {
            f"{item.tensor.initializer}.{name}": array
            for name, array in zip(sparse.NAMES, item.fields.arrays, strict=True)
        }
        inputs = [item.node.inputs[0], *given, *([item.bias] if item.bias else [])]
        label = item.tensor.name
        made = build.node(sparse.OPERATOR, inputs, item.node.outputs, name=label, domain=build.DOMAIN)
        nodes[item.index] = (made,)
        arrays.update(given)
    return Rewrite(nodes, arrays)


def _measured(threads: int, traffic: int) -> breakeven.Rows:
    """SparseGemm without a zero among the inputs, by number of bytes."""
    rng = np.random.default_rng(0)
    rows = []
    for side in breakeven.SIDES:
        x = rng.standard_normal((max(breakeven.SAMPLES), side), np.float32)
        positions = np.flatnonzero(rng.random(side * side, np.float32) < DENSITY)
        codes = rng.integers(0, sparse.CODES, positions.size, np.uint8)
        codebook = np.linspace(-1, 1, sparse.CODES, dtype=np.float32)
        fields = sparse.packed(positions, codes, codebook, (side, side), streams=threads)
        rows.append((fields.bytes.size, breakeven.times(sparse.model(fields), x, threads, traffic=traffic)))
    return tuple(rows)
