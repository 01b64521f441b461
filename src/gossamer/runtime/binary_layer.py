"""binary_layer: the layers of a network that multiply binary weights with signs.

    Conv, of any number of groups     of an image of signs, pooled or not, behind a Pad or not
    Gemm, MatMul on a weight matrix   of a matrix of signs; Gemm also of an image of signs behind Flatten

A sign is Where(x >= 0, 1, -1), as blocks.Sign is exported. A Pad puts 1 around an image that the Conv does not pad, or 0:
both become the layer's. Weights of several bases are none of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..artifact.outline import TensorOutline
from . import binary, binary_cost, epilogue, graph, padding, windows
from .lower_sparse import plain
from .lowering import Network


@dataclass(frozen=True)
class Pad:
    """A node that puts `value`, 0 or 1, around an image: top, left, bottom and right."""

    index: int
    pads: tuple[int, int, int, int]
    value: int


@dataclass(frozen=True)
class Source:
    """Where a layer's signs come from: a sign, the poolings after it in order, and the last value that is no row yet.

    pad: between that value and the layer
    """

    sign: str
    pools: tuple[int, ...]
    name: str
    pad: Pad | None = None


@dataclass(frozen=True)
class Layer:
    """A node that could be replaced."""

    network: Network
    index: int
    node: graph.Node
    tensor: TensorOutline
    outputs_first: bool  # the stored weight is [outputs, ...]
    geometry: binary.Geometry
    source: Source
    follows: epilogue.Epilogue

    @property
    def operator(self) -> str:
        return binary.TO_BITS if self.follows.sign else binary.OPERATOR

    @property
    def output(self) -> str:
        return self.node.outputs[0]

    @property
    def weights(self) -> int:
        return math.prod(self.tensor.node.shape)

    @property
    def outputs(self) -> int:
        return self.tensor.node.shape[0 if self.outputs_first else 1]

    def times(self) -> Mapping[int, tuple[float, float]]:
        network, geometry = self.network, self.geometry
        if geometry.product or geometry.flatten:
            traffic = network.traffic(self.weights)
            return binary_cost.product(geometry, self.outputs, network.threads, network.samples(), traffic)
        if geometry.group > 1:
            return binary_cost.grouped(geometry, self.outputs, network, self.source.name)
        sizes = network.shapes.get(self.output, ())[2:]
        return binary_cost.conv(geometry, self.outputs, network.threads, network.batch, sizes)

    def why(self) -> str:
        return "signs times signs, and dense is expected to be slower"

    @cached_property
    def negative(self) -> np.ndarray:
        """bool [O, C, kh, kw], true for -1."""
        stored = self.network.reader.tensor(self.tensor.name).stored
        signs = stored.fields["signs"].values.reshape(self.tensor.node.shape) != 0
        matrix: np.ndarray = signs if self.outputs_first else signs.T
        return matrix.reshape(self.outputs, self.geometry.inner, *self.geometry.kernel)

    @cached_property
    def scale(self) -> np.ndarray:
        """float32 [O]."""
        stored = self.network.reader.tensor(self.tensor.name).stored
        given = np.asarray(stored.fields["scale"].values, np.float32).reshape(-1)
        return np.broadcast_to(given, (self.outputs,))

    @cached_property
    def bias(self) -> np.ndarray:
        """float32 [O]."""
        held = self.network.constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None
        return np.zeros(self.outputs, np.float32) if held is None else held.reshape(-1)

    def value(self, v: np.ndarray) -> np.ndarray:
        """What the layer makes of whole numbers, in float32."""
        made: np.ndarray = self.scale * v.astype(np.float32) + self.bias
        return made


def find(network: Network) -> list[Layer]:
    """Every node that could be replaced."""
    if not any(item.node.layout == "binary" for item in network.tensors.values()):
        return []
    signed = epilogue.signs(network)
    found = [_layer(network, index, signed) for index in range(len(network.nodes))]
    return [layer for layer in found if layer is not None]


def _layer(network: Network, index: int, signed: Mapping[str, tuple[str, int]]) -> Layer | None:
    node, attributes = network.nodes[index]
    tensor = network.tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if tensor is None or node.op not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        return None
    held, turned = (
        tensor.node,
        tensor.perm is not None and tuple(tensor.perm) != tuple(range(len(tensor.perm))),
    )
    if held.layout != "binary" or "bases" in held.options or tensor.dtype != "float32":
        return None
    if len(held.shape) != (4 if node.op == "Conv" else 2) or network.uses[tensor.initializer] != 1:
        return None
    if min(held.shape) < 1 or (node.op == "Conv" and turned):
        return None
    transposed = node.op == "Gemm" and bool(attributes.numbers.get("transB", 0))
    outputs_first = node.op == "Conv" or transposed != turned
    outputs = held.shape[0 if outputs_first else 1]
    if held.fields["scale"].count != 1 and not outputs_first:  # a scale for each input
        return None
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = network.constant(node.inputs[2])
        if bias is None or bias.shape != (outputs,):
            return None
    pad = _pad(network, node.inputs[0]) if node.op == "Conv" else None
    source = _source(network, node.inputs[0], signed, pad, flat=node.op == "Gemm")
    if source is None:
        return None
    geometry = (
        _windows(attributes, held.shape, pad)
        if node.op == "Conv"
        else _rows(network, node, attributes, held.shape[1 if outputs_first else 0], source)
    )
    if geometry is None:
        return None
    rank = 4 if node.op == "Conv" else 2 if node.op == "Gemm" else len(network.shapes[node.inputs[0]])
    follows = epilogue.follow(network, node.outputs[0], outputs, rank, signed)
    return Layer(network, index, node, tensor, outputs_first, geometry, source, follows)


def _pad(network: Network, name: str) -> Pad | None:
    """What gives an image `name` with 0 or 1 around it."""
    index = network.producers.get(name)
    found = None if index is None else padding.of(*network.nodes[index], 4, network.constant)
    if index is None or found is None or found.around is None or found.value not in (0, 1):
        return None
    return Pad(index, found.around, int(found.value))


def _source(
    network: Network, name: str, signed: Mapping[str, tuple[str, int]], pad: Pad | None, *, flat: bool
) -> Source | None:
    """The sign that `name` carries, behind Flatten (where that may be), `pad` and poolings."""
    if pad is not None:
        name = network.nodes[pad.index][0].inputs[0]
    index = network.producers.get(name)
    if flat and index is not None:
        node, attributes = network.nodes[index]
        if node.op == "Flatten" and attributes.numbers.get("axis", 1) == 1:
            name = node.inputs[0]
    last, pools = name, list[int]()
    while name not in signed:
        index = network.producers.get(name)
        if index is None or not epilogue.pools(*network.nodes[index]):
            return None
        pools.append(index)
        name = network.nodes[index][0].inputs[0]
    return Source(name, tuple(reversed(pools)), last, pad)


def _windows(attributes: graph.Attributes, shape: tuple[int, ...], pad: Pad | None) -> binary.Geometry | None:
    """The geometry of a Conv behind `pad`."""
    kernel = shape[2], shape[3]
    given = windows.of(attributes, kernel)
    if given is None or shape[0] % given.group:
        return None
    pads, value = given.pads, 0
    if pad is not None:
        if pad.value and any(pads):  # 0 around 1
            return None
        top, left, bottom, right = (sum(two) for two in zip(pads, pad.pads, strict=True))
        pads, value = (top, left, bottom, right), pad.value
    if max(pads) > windows.LARGEST:
        return None
    channels = shape[1] * given.group
    return binary.Geometry(channels, kernel, given.strides, given.dilations, pads, value, given.group)


def _rows(
    network: Network, node: graph.Node, attributes: graph.Attributes, inputs: int, source: Source
) -> binary.Geometry | None:
    """The geometry of a Gemm or MatMul with so many inputs."""
    if node.op == "Gemm" and not plain(attributes.numbers):
        return None
    shape = network.shapes.get(source.name, ())
    if source.name != node.inputs[0]:  # Flatten lies between
        channels = shape[1] if len(shape) == 4 else None
        if not channels or inputs % channels:
            return None
        return binary.Geometry(channels, (1, inputs // channels), flatten=True)
    # the bits of an image have its channels last, but a product has what was last among the floats
    if source.pools or (node.op == "MatMul" and len(shape) in (0, 4)):
        return None
    return binary.Geometry(inputs, product=True)
