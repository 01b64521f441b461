"""lower_ternary_int8: a Conv, Gemm or MatMul of ternary integers and inputs of 8 bits -> TernaryConvInt8, TernaryGemmInt8.

    DequantizeLinear(x, s, z) - Conv / Gemm / MatMul (DequantizeLinear(t, a), DequantizeLinear(b, s a)) - ...

as `Binarize(weights="TWN")` and then `Calibrate` leave it, with t of -1, 0 and 1 and zero point 0, used nowhere else, and a
scale a for all outputs or each. The operator reads x as it is before DequantizeLinear and gives floats, which the
QuantizeLinear that follows rounds as before.

ONNX Runtime multiplies such weights as bytes. Ours are a quarter of that to read, which pays where weights come from memory
and not where they are used many times once they are there: products are compared by their size, convolutions one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..artifact.outline import TensorOutline
from . import breakeven, build, conv_trial, graph, ternary, ternary_int8
from .lower_sparse import plain
from .lowering import Network, Rewrite
from .ports import Port
from .windows import Windows
from .windows import of as windows_of

NAME = "ternary-int8"
LEAST_WEIGHTS = 2**16


@dataclass(frozen=True)
class Input:
    """What DequantizeLinear reads: the integers, their scale, and their zero point as 8 unsigned bits."""

    name: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Layer:
    """A node that could be replaced; `windows` are those of a convolution."""

    network: Network
    index: int
    node: graph.Node
    tensor: TensorOutline
    fields: ternary.TernaryWeight
    x: Input
    scale: np.ndarray
    bias: np.ndarray
    windows: Windows

    @property
    def operator(self) -> str:
        return ternary_int8.CONV if len(self.fields.shape) == 4 else ternary_int8.GEMM

    @property
    def output(self) -> str:
        return self.node.outputs[0]

    @property
    def weights(self) -> int:
        return math.prod(self.fields.shape)

    def times(self) -> Mapping[int, tuple[float, float]]:
        network, threads = self.network, self.network.threads
        if self.operator == ternary_int8.GEMM:
            traffic = network.traffic(self.weights)
            ours = breakeven.curve(NAME, threads, _ours, traffic=traffic)
            dense = breakeven.curve("dense-int8", threads, _dense, traffic=traffic)
            counts = network.samples(fixed=self.node.op == "Gemm")
            return {n: (ours.ms(self.weights, n), dense.ms(self.weights, n)) for n in counts}
        return conv_trial.times(
            NAME,
            _our_conv,
            network,
            self.node.inputs[0],
            self.fields.shape,
            self.windows,
            rival=("conv-int8", _dense_conv),
            dtype="uint8",
        )

    def why(self) -> str:
        return "2 bits per weight times 8 of the input, and 8 bits times 8 are expected to be slower"


def find(network: Network) -> list[Layer]:
    """Every node that could be replaced."""
    if not any(ternary_int8.fits(item.node) for item in network.tensors.values()):
        return []
    found = [_layer(network, index) for index in range(len(network.nodes))]
    return [layer for layer in found if layer is not None]


def _layer(network: Network, index: int) -> Layer | None:
    node, attributes = network.nodes[index]
    if node.op not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        return None
    x = _input(network, node.inputs[0])
    source = _rounded(network, node.inputs[1])
    if x is None or source is None or network.uses[node.inputs[1]] != 1:
        return None
    rounding, axis = source
    tensor = network.tensors.get(rounding.inputs[0])
    if tensor is None or not ternary_int8.fits(tensor.node) or network.uses[tensor.initializer] != 1:
        return None
    turned = tensor.perm is not None and tuple(tensor.perm) != tuple(range(len(tensor.node.shape)))
    windows: Windows | None = Windows()
    if node.op == "Conv":
        four = len(tensor.node.shape) == 4 and not turned
        windows = windows_of(attributes, tensor.node.shape[2:]) if four else None
        outputs_first, transposed = True, False
    elif len(tensor.node.shape) == 2 and plain(attributes.numbers):
        outputs_first = node.op == "Gemm" and bool(attributes.numbers.get("transB", 0))  # in the graph
        transposed = turned == outputs_first
    else:
        return None
    zero = network.small(rounding.inputs[2]) if len(rounding.inputs) > 2 else None
    if windows is None or (len(rounding.inputs) > 2 and (zero is None or zero.any())):
        return None
    scale = network.constant(rounding.inputs[1])
    if scale is None or (scale.size > 1 and axis != (0 if outputs_first else 1)):
        return None
    fields = ternary_int8.of(network.reader.tensor(tensor.name).stored, transposed=transposed)
    if fields is None or scale.size not in (1, fields.shape[0]):
        return None
    whole = scale.reshape(-1).astype(np.float64) * x.scale
    bias = _bias(network, node, fields.shape[0])
    if bias is None or not np.isfinite(whole).all():
        return None
    return Layer(network, index, node, tensor, fields, x, whole.astype(np.float32), bias, windows)


def _rounded(network: Network, name: str) -> tuple[graph.Node, int] | None:
    """The DequantizeLinear that gives a name, and its axis."""
    index = network.producers.get(name)
    if index is None:
        return None
    node, attributes = network.nodes[index]
    if node.op != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return None
    return None if attributes.numbers.get("block_size", 0) else (node, int(attributes.numbers.get("axis", 1)))


def _input(network: Network, name: str) -> Input | None:
    source = _rounded(network, name)
    if source is None or len(source[0].inputs) < 3:
        return None
    node = source[0]
    scale, zero = network.constant(node.inputs[1]), network.small(node.inputs[2])
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.itemsize != 1:
        return None
    moved = int(zero.item()) + (128 if zero.dtype == np.int8 else 0)
    return Input(node.inputs[0], float(scale.item()), moved)


def _bias(network: Network, node: graph.Node, outputs: int) -> np.ndarray | None:
    """float32 [O]; None where it is not constant."""
    if len(node.inputs) < 3 or not node.inputs[2]:
        return np.zeros(outputs, np.float32)
    held = network.constant(node.inputs[2])
    source = _rounded(network, node.inputs[2])
    if held is None and source is not None and len(source[0].inputs) == 2:
        codes, scale = network.small(source[0].inputs[0]), _product(network, source[0].inputs[1])
        if codes is not None and scale is not None and scale.size in (1, codes.size):
            held = codes.astype(np.float64) * scale
    if held is None or held.size != outputs:
        return None
    return held.reshape(-1).astype(np.float32)


def _product(network: Network, name: str) -> np.ndarray | None:
    """A constant, or a Mul of two."""
    held = network.constant(name)
    index = network.producers.get(name)
    if held is not None or index is None or network.nodes[index][0].op != "Mul":
        return held
    both = [network.constant(one) for one in network.nodes[index][0].inputs]
    if both[0] is None or both[1] is None:
        return None
    product: np.ndarray = both[0].astype(np.float64) * both[1]
    return product


def rewrite(network: Network, chosen: Sequence[Layer]) -> Rewrite:
    """One node each; its fields are initialisers NAME.FIELD."""
    nodes: dict[int, Sequence[bytes]] = {}
    arrays: dict[str, np.ndarray] = {}
    for layer in chosen:
        held = (layer.fields.codes, layer.scale, layer.bias)
        given = {
            f"{layer.tensor.initializer}.{key}": array
            for key, array in zip(ternary_int8.NAMES, held, strict=True)
        }
        arrays |= given
        made = ternary_int8.node(
            [layer.x.name, *given],
            layer.output,
            layer.fields.shape,
            layer.x.zero_point,
            layer.windows,
            name=layer.tensor.name,
        )
        nodes[layer.index] = (made,)
    return Rewrite(nodes, arrays)


def measured(shape: tuple[int, ...], windows: Windows, ours: bool) -> bytes:
    """A model of one layer of drawn ternary weights and 8 bits in and out, by `ours` or by ONNX Runtime."""
    signs = np.random.default_rng(0).integers(-1, 2, shape, np.int8)
    outputs, conv = shape[0], len(shape) == 4
    scale, bias = np.full(outputs, 1e-3, np.float32), np.zeros(outputs, np.int32)
    given: dict[str, np.ndarray] = {"ys": np.array(0.1, np.float32), "yz": np.array(128, np.uint8)}
    if ours:
        codes = np.where(signs < 0, 1, 2 * signs).astype(np.uint8)
        fields = ternary.packed(codes, np.array([-1, 1], np.float32), np.ones(1, np.float32))
        given |= {"codes": fields.codes, "scale": scale, "bias": bias.astype(np.float32)}
        nodes = [ternary_int8.node(["x", *ternary_int8.NAMES], "sum", shape, 128, windows)]
    else:
        # with its zero points, as the exporter writes it: without, ONNX Runtime multiplies a Gemm in floats
        zero, one = np.array(0, np.int8), np.array(1.0, np.float32)
        given |= {"xs": one, "xz": given["yz"], "w": signs, "ws": scale[0].reshape(()), "wz": zero, "b": bias}
        attributes = windows.lists() if conv else {}
        group = {"group": attributes.pop("group")[0]} if conv else {"transB": 1}
        nodes = [
            build.node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
            build.node("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
            build.node("DequantizeLinear", ["b", "ws"], ["bf"]),
            build.node(
                "Conv" if conv else "Gemm", ["xf", "wf", "bf"], ["sum"], integers=group, lists=attributes
            ),
        ]
    nodes.append(build.node("QuantizeLinear", ["sum", "ys", "yz"], ["y"]))
    axes: tuple[str, ...] = ("height", "width") if conv else ()
    inner: tuple[str, ...] = ("rows", "columns") if conv else ()
    before = Port("x", ("batch", shape[1] * (windows.group if conv else 1), *axes), "uint8")
    return build.model(nodes, [before], [Port("y", ("batch", outputs, *inner), "uint8")], given)


def _our_conv(conv: conv_trial.Conv) -> bytes:
    return measured(conv.shape, conv.windows, True)


def _dense_conv(conv: conv_trial.Conv) -> bytes:
    return measured(conv.shape, conv.windows, False)


def _products(ours: bool, threads: int, traffic: int) -> breakeven.Rows:
    rows = []
    for side in breakeven.SIDES:
        x = np.random.default_rng(0).integers(0, 256, (max(breakeven.SAMPLES), side), np.uint8)
        model = measured((side, side), Windows(), ours)
        rows.append((side * side, breakeven.times(model, x, threads, traffic=traffic)))
    return tuple(rows)


def _ours(threads: int, traffic: int) -> breakeven.Rows:
    return _products(True, threads, traffic)


def _dense(threads: int, traffic: int) -> breakeven.Rows:
    return _products(False, threads, traffic)
