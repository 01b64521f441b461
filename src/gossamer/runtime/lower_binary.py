"""lower_binary: layers of binary weights and signs -> operators on bits (see `binary_layer` for which they are).

layer                             BinaryConv: scale, bias and norm folded in
layer ... sign                    BinaryConvSign (see `epilogue`): its bits are what the next layer reads, and the
                                  floats between the two never exist
sign of other floats              within the layer that alone reads it, else BinarySign
MaxPool of signs, or before one   BinaryMaxPool
what else reads a sign            gets it from BinaryFloats
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import binary, build, epilogue
from .binary_layer import Layer
from .binary_layer import find as find
from .lowering import Network, Rewrite

NAME = "binary"
LEAST_WEIGHTS = 2**14


def rewrite(network: Network, chosen: Sequence[Layer]) -> Rewrite:
    """Nodes for the layers, for the signs that they read, and for the floats that others still read."""
    writer = _Writer(network, chosen)
    for layer in chosen:
        writer.add(layer)
    return Rewrite(writer.nodes, writer.arrays, writer.after)


class _Writer:
    """The bits of a value NAME are called NAME.bits. Nodes of which nothing is read go later."""

    def __init__(self, network: Network, chosen: Sequence[Layer]) -> None:
        self.network = network
        self.signed = epilogue.signs(network)
        self.written = {layer.follows.sign for layer in chosen}  # signs that layers give as bits
        self.known: set[str] = set()  # other values whose bits exist
        self.nodes: dict[int, list[bytes]] = {}
        self.after: dict[int, list[bytes]] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, layer: Layer) -> None:
        if layer.follows.sign:
            self._to_bits(layer, layer.follows.sign)
        else:
            self._to_floats(layer)

    def _to_floats(self, layer: Layer) -> None:
        scale, offset, count = layer.follows.affine(
            layer.scale.astype(np.float64), layer.bias.astype(np.float64)
        )
        name = layer.follows.outputs[count - 1] if count else layer.output
        self.nodes[self.network.producers[name]] = []
        with np.errstate(over="ignore"):  # of a hostile scale
            fields = {"scale": scale.astype(np.float32), "offset": offset.astype(np.float32)}
        self._operator(layer, layer.negative, fields, name)

    def _to_bits(self, layer: Layer, sign: str) -> None:
        follows, geometry = layer.follows, layer.geometry
        thresholds, falls, flips = follows.thresholds(layer.value, geometry.products, layer.outputs)
        negative = layer.negative ^ falls[:, None, None, None]
        output = f"{sign}.bits" if follows.pool is None else f"{sign}.unpooled"
        self._operator(layer, negative, {"thresholds": thresholds}, output)
        if follows.pool is not None:
            self.nodes[layer.index].append(self._pool(follows.pool, output, f"{sign}.bits", flips))
        self._give_floats(
            sign, self.signed[sign][1], layer.outputs, rows=geometry.product or geometry.flatten
        )

    def _give_floats(self, name: str, index: int, channels: int, *, rows: bool) -> None:
        """Let node `index`, which gave the floats `name`, read its bits; the same for the poolings after it."""
        lists = {"channels": (channels,), "product": (int(rows),)}
        made = build.node(binary.FLOATS, [f"{name}.bits"], [name], domain=build.DOMAIN, lists=lists)
        self.nodes.setdefault(index, []).append(made)
        for reader in self.network.readers.get(name, ()):
            if not rows and epilogue.pools(*self.network.nodes[reader]):
                pooled = self.network.nodes[reader][0].outputs[0]
                self.nodes[reader] = [
                    self._pool(reader, f"{name}.bits", f"{pooled}.bits", np.zeros(channels, bool))
                ]
                self._give_floats(pooled, reader, channels, rows=rows)

    def _operator(
        self, layer: Layer, negative: np.ndarray, fields: Mapping[str, np.ndarray], output: str
    ) -> None:
        given = {"filters": binary.packed_signs(negative), **fields}
        names = {f"{layer.tensor.initializer}.{name}": array for name, array in given.items()}
        self.arrays.update(names)
        inputs = [self._input(layer), *names]
        made = binary.node(layer.operator, inputs, output, layer.geometry, name=layer.tensor.name)
        self.nodes[layer.index] = [made]

    def _input(self, layer: Layer) -> str:
        """The bits that a layer reads, or the floats whose signs it takes itself."""
        source, geometry = layer.source, layer.geometry
        floats, index = self.signed[source.sign]
        if source.sign in self.written:
            return f"{source.name}.bits"
        if self._reads_alone(layer):
            return floats
        if source.sign not in self.known:
            self.known.add(source.sign)
            bits, lists = f"{source.sign}.bits", {"product": (int(geometry.product),)}
            made = build.node(binary.SIGN, [floats], [bits], domain=build.DOMAIN, lists=lists)
            self.after.setdefault(index, []).append(made)
        name = source.sign
        for pool in source.pools:
            pooled = self.network.nodes[pool][0].outputs[0]
            if pooled not in self.known:
                self.known.add(pooled)
                made = self._pool(pool, f"{name}.bits", f"{pooled}.bits", np.zeros(geometry.channels, bool))
                self.after.setdefault(pool, []).append(made)
            name = pooled
        return f"{source.name}.bits"

    def _reads_alone(self, layer: Layer) -> bool:
        """Whether nothing but the layer reads its sign."""
        reader, pad = self.network.only_reader(layer.source.sign), layer.source.pad
        if pad is not None and reader == pad.index:
            reader = self.network.only_reader(self.network.nodes[reader][0].outputs[0])
        return reader == layer.index

    def _pool(self, index: int, source: str, output: str, flips: np.ndarray) -> bytes:
        lists = self.network.nodes[index][1].lists
        packed = np.zeros(binary.channel_bytes(flips.size), np.uint8)
        bits = np.packbits(flips, bitorder="little")
        packed[: bits.size] = bits
        self.arrays[f"{output}.flips"] = packed
        attributes = {
            "kernel_shape": lists["kernel_shape"],
            "strides": lists.get("strides", (1, 1)),
            "pads": lists.get("pads", (0, 0, 0, 0)),
        }
        return build.node(
            binary.POOL, [source, f"{output}.flips"], [output], domain=build.DOMAIN, lists=attributes
        )
