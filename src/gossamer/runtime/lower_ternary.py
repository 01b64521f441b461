"""lower_ternary: a Conv, Gemm or MatMul of ternary weights -> TernaryConv or TernaryGemm.

Weights of signs are ternary ones without a zero, for inputs that are no signs.
The weight must be used nowhere else. Multiplications and additions that follow per output (a bias, a batch norm) are folded
into the scale and bias of the operator. Products are compared by their size, convolutions one by one: what a convolution
costs depends on its channels, taps and pixels in both kernels (see `conv_trial`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..artifact.outline import TensorOutline
from . import breakeven, conv_trial, epilogue, graph, ternary
from .lower_sparse import plain
from .lowering import Network, Rewrite
from .windows import Windows
from .windows import of as windows_of

NAME = "ternary"
LEAST_WEIGHTS = 2**16
TABLES = 48
NAMES = (*ternary.NAMES, "bias")


@dataclass(frozen=True)
class Layer:
    """A node that could be replaced; `windows` are those of a convolution."""

    network: Network
    index: int
    node: graph.Node
    tensor: TensorOutline
    fields: ternary.TernaryWeight
    bias: np.ndarray | None
    windows: Windows

    @property
    def operator(self) -> str:
        return ternary.CONV if len(self.fields.shape) == 4 else ternary.GEMM

    @property
    def output(self) -> str:
        return self.node.outputs[0]

    @property
    def weights(self) -> int:
        return math.prod(self.fields.shape)

    def times(self) -> Mapping[int, tuple[float, float]]:
        network, threads = self.network, self.network.threads
        if self.operator == ternary.GEMM:
            traffic = network.traffic(self.weights)
            ours = breakeven.curve(NAME, threads, _products, traffic=traffic)
            dense = breakeven.dense(threads, traffic=traffic)
            counts = network.samples(fixed=self.node.op == "Gemm")
            return {n: (ours.ms(work(*self.fields.shape), n), dense.ms(self.weights, n)) for n in counts}
        source = self.node.inputs[0]
        return conv_trial.times(NAME, _convolution, network, source, self.fields.shape, self.windows)

    def why(self) -> str:
        return "2 bits per weight, and dense is expected to be slower"

    @cached_property
    def folded(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(scale, bias, names): float32 [O] each, and the outputs of the layer and of what is folded into it."""
        outputs, op = self.fields.shape[0], self.node.op
        scale = np.broadcast_to(self.fields.scale.astype(np.float64), (outputs,))
        bias = np.zeros(outputs) if self.bias is None else self.bias.astype(np.float64)
        rank = {"Conv": 4, "Gemm": 2}.get(op) or len(self.network.shapes.get(self.output, ()))
        names = [self.output]
        if rank in (2, 3) or op == "Conv":
            follows = epilogue.follow(self.network, self.output, outputs, rank, {})
            scale, bias, count = follows.affine(scale, bias)
            names += follows.outputs[:count]
        return scale.astype(np.float32), bias.astype(np.float32), names


def work(outputs: int, inputs: int) -> int:
    """What the time of a product grows with: outputs come in blocks of 16, tables cost as much as TABLES outputs."""
    return (-(-outputs // 16) * 16 + TABLES) * inputs


def _products(threads: int, traffic: int) -> breakeven.Rows:
    rng = np.random.default_rng(0)
    rows = []
    for side in (breakeven.SIDES[0] // 2, *breakeven.SIDES):
        x = rng.standard_normal((max(breakeven.SAMPLES), side), np.float32)
        model = ternary.model(_drawn((side, side)))
        rows.append((work(side, side), breakeven.times(model, x, threads, traffic=traffic)))
    return tuple(rows)


def _convolution(conv: conv_trial.Conv) -> bytes:
    return ternary.model(_drawn(conv.shape), windows=conv.windows)


def _drawn(shape: tuple[int, ...]) -> ternary.TernaryWeight:
    codes = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    return ternary.packed(codes, np.array([-1, 1], np.float32), np.ones(1, np.float32))


def find(network: Network) -> list[Layer]:
    """Every node that could be replaced."""
    tensors = network.tensors
    found = []
    for index, (node, attributes) in enumerate(network.nodes):
        tensor = tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if tensor is None or not ternary.fits(tensor.node) or network.uses[tensor.initializer] != 1:
            continue
        if tensor.dtype != "float32" or node.domain not in ("", "ai.onnx"):
            continue
        turned = tensor.perm is not None and tuple(tensor.perm) != tuple(range(len(tensor.node.shape)))
        windows: Windows | None = Windows()
        if node.op == "Conv":
            windows = (
                None
                if turned or len(tensor.node.shape) != 4
                else windows_of(attributes, tensor.node.shape[2:])
            )
            transposed = False
        elif node.op in ("Gemm", "MatMul") and len(tensor.node.shape) == 2 and plain(attributes.numbers):
            transposed = turned == (node.op == "Gemm" and bool(attributes.numbers.get("transB", 0)))
        else:
            continue
        if windows is None:
            continue
        fields = ternary.of(network.reader.tensor(tensor.name).stored, transposed=transposed)
        if fields is None:
            continue
        bias = None
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = network.constant(node.inputs[2])
            if bias is None or bias.size != fields.shape[0]:
                continue
            bias = bias.reshape(-1)
        found.append(Layer(network, index, node, tensor, fields, bias, windows))
    return found


def rewrite(network: Network, chosen: Sequence[Layer]) -> Rewrite:
    """One node each; its fields are initialisers NAME.FIELD."""
    nodes: dict[int, Sequence[bytes]] = {}
    arrays: dict[str, np.ndarray] = {}
    for layer in chosen:
        scale, bias, names = layer.folded
        held = (layer.fields.codes, layer.fields.values, scale, bias)
        given = {f"{layer.tensor.initializer}.{key}": array for key, array in zip(NAMES, held, strict=True)}
        arrays |= given
        nodes |= {network.producers[name]: () for name in names}
        inputs = [layer.node.inputs[0], *given]
        made = ternary.node(inputs, names[-1], layer.fields.shape, layer.windows, name=layer.tensor.name)
        nodes[layer.index] = (made,)
    return Rewrite(nodes, arrays)
