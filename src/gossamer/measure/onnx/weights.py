"""weights: which initialisers are weights, what they are for, and how many of their values are not zero.

    weight      a factor, a bias, a table: trained
    statistic   a running mean or variance, a scale or zero point of a quantized tensor, the state a recurrent
                layer starts from: not trained

A tensor of floats is a weight, except a single number that no layer reads as its weight and whose name is not
one of a module ("block.0.alpha" is): those are constants of the formula. A tensor of integers is a weight where
a quantized operator reads it, else from INLINE elements on a buffer (indices, masks), else a shape or an axis.
An integer weight is zero where it equals its zero point. What reads a weight through nodes that run once, when
the file is opened, reads the weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto, TensorProto

from ..schedule import Weight
from .file import Initializer, Model, attributes
from .inner import subgraphs
from .ops import VIEWS
from .products import RECURRENT, WEIGHTED

INLINE = 16  # integers
MODULE = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)+")
HANDED_ON = {*VIEWS, "Transpose", "Slice", "Split", "Concat", "Cast", "DequantizeLinear"}  # the same values
_FLOATS = {
    number for name, number in TensorProto.DataType.items() if name.startswith(("FLOAT", "BFLOAT", "DOUBLE"))
}
_NORMS = (
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "GroupNorm"),
    *("RMSNormalization", "SimplifiedLayerNormalization"),
)
_PARAMETERS: dict[str, tuple[int, ...]] = {  # inputs of one number that are still weights
    **WEIGHTED,
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", *_NORMS), (1, 2)),
    **dict.fromkeys(("Gemm", "FusedGemm"), (0, 1, 2)),
    **dict.fromkeys(RECURRENT, (1, 2, 3, 7)),
    "PRelu": (1,),
}
_QUANTIZED: dict[str, tuple[tuple[int | None, int | None, int | None], ...]] = {  # values, scale, zero point
    "DequantizeLinear": ((0, 1, 2),),
    "QuantizeLinear": ((None, 1, 2),),
    "QLinearConv": ((0, 1, 2), (3, 4, 5), (None, 6, 7), (8, None, None)),
    **dict.fromkeys(("QLinearMatMul", "QLinearAdd", "QLinearMul"), ((0, 1, 2), (3, 4, 5), (None, 6, 7))),
    "QGemm": ((0, 1, 2), (3, 4, 5), (6, None, None), (None, 7, 8)),
    "QAttention": ((0, 3, 6), (1, 4, 7)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), ((0, None, 2), (1, None, 3))),
    "MatMulIntegerToFloat": ((0, 2, 4), (1, 3, 5)),
    "DynamicQuantizeMatMul": ((1, 2, 3),),
    "DynamicQuantizeLSTM": ((1, 8, 9), (2, 10, 11)),
    "MatMulNBits": ((1, 2, 3),),
}


@dataclass(frozen=True)
class Quantization:
    """How an integer weight is read: its zero point (the name of an initialiser) and the axis of that."""

    zero_point: str = ""
    axis: int = -1
    block: int = 0
    packed: tuple[int, ...] = ()  # the real shape of a weight that is stored in bytes of several values


class Weights:
    """The weights of a graph, by the graph's names."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._initializers = dict(model.initializers)
        self._quantized: dict[str, Quantization] = {}
        self._statistics: set[str] = set()
        self._parameters: set[str] = set()
        self._nonzero: dict[str, int | None] = {}
        self._look(model.proto.graph.node)

    def add(self, name: str, initializer: Initializer) -> None:
        """One more initialiser, of a graph inside a node."""
        self._initializers[name] = initializer

    def holds(self, name: str) -> bool:
        """Whether an initialiser is a weight."""
        if name not in self._initializers:
            return False
        initializer = self._initializers[name]
        if name in self._quantized or name in self._statistics or name in self._model.coded:
            return True
        numel = prod(initializer.value.shape)
        if initializer.value.elem_type not in _FLOATS:
            return numel > INLINE and initializer.value.elem_type != TensorProto.STRING
        return numel > 1 or name in self._parameters or bool(MODULE.fullmatch(initializer.name))

    def name(self, name: str) -> str:
        """The model's name of an initialiser."""
        return self._initializers[name].name

    def is_matrix(self, name: str) -> bool:
        """Whether it can be the factor of a product: two axes or more, and neither scale nor zero point."""
        return name not in self._statistics and len(self.shape(name)) > 1

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the weight, of one whose values share bytes too."""
        quantization = self._quantized.get(name)
        packed = quantization.packed if quantization else ()
        return packed or self._initializers[name].value.shape

    def nonzero(self, name: str) -> int | None:
        """Values that are not zero; None where they are not stored one by one."""
        if name not in self._nonzero:
            self._nonzero[name] = self._count(name)
        return self._nonzero[name]

    def record(self, name: str, layer: str) -> Weight:
        """The row of a weight that `layer` reads first."""
        initializer = self._initializers[name]
        value, shape = initializer.value, self.shape(name)
        floats = value.elem_type in _FLOATS
        weight = name in self._quantized or (floats and name not in self._statistics)
        inline = self._model.packed is not None and name not in self._model.coded
        return Weight(
            name=initializer.name,
            layer=layer,
            shape=shape,
            numel=prod(shape),
            dense_bytes=4 * prod(shape) if name in self._quantized else value.bytes,
            nonzero=self.nonzero(name),
            stored_bytes=initializer.stored_bytes,
            trained=weight and not (inline and floats and name not in self._parameters),
        )

    def unread(self, read: Iterable[str]) -> list[str]:
        """Weights that are not among `read`."""
        left = self._initializers.keys() - set(read)
        return [name for name in self._initializers if name in left and self.holds(name)]

    def _look(self, nodes: Iterable[NodeProto]) -> None:
        """Learn from the operators what their initialisers are; the readers of a copy come before it."""
        for node in reversed(list(nodes)):
            for inner in subgraphs(node):
                self._look(inner.node)
            self._read(node)
            if node.op_type in HANDED_ON and node.output[0] in self._statistics:
                self._statistics.add(node.input[0])
            if node.op_type in HANDED_ON and node.output[0] in self._parameters:
                self._parameters.add(node.input[0])

    def _read(self, node: NodeProto) -> None:
        def at(place: int | None) -> str:
            return node.input[place] if place is not None and place < len(node.input) else ""

        self._parameters.update(filter(None, map(at, _PARAMETERS.get(node.op_type, ()))))
        if node.op_type == "BatchNormalization":
            self._statistics.update(filter(None, (at(3), at(4))))
        if node.op_type in RECURRENT:  # the state before the first step
            self._statistics.update(filter(None, (at(5), at(6))))
        options = attributes(node) if node.op_type in _QUANTIZED else {}
        for values, scale, zero_point in _QUANTIZED.get(node.op_type, ()):
            self._statistics.update(filter(None, (at(scale), at(zero_point))))
            held = self._initializers.get(at(values))
            if held is not None:
                self._quantized[at(values)] = Quantization(
                    at(zero_point),
                    _axis(node.op_type, options),
                    int(options.get("block_size", 0)),
                    (options["N"], options["K"]) if node.op_type == "MatMulNBits" else (),
                )

    def _count(self, name: str) -> int | None:
        quantization = self._quantized.get(name, Quantization())
        if quantization.packed:
            return None
        values = self._initializers[name].read()
        zeros = self._initializers.get(quantization.zero_point)
        if zeros is None or self._initializers[name].value.elem_type in _FLOATS:
            return int(np.count_nonzero(values))
        zero = _spread(zeros.read(), values.shape, quantization)
        return None if zero is None else int(np.count_nonzero(values.astype(np.int32) - zero))


def _axis(op: str, options: Mapping[str, object]) -> int:
    """The axis of a weight that has one zero point per index."""
    if op == "DequantizeLinear":
        return int(str(options.get("axis", 1)))
    if op == "QGemm":
        return 0 if options.get("transB", 0) else 1
    return 0 if op in ("QLinearConv", "ConvInteger", "DynamicQuantizeLSTM") else -1


def _spread(zero: np.ndarray, shape: tuple[int, ...], how: Quantization) -> np.ndarray | None:
    """Zero points in a shape that broadcasts over the weight; None for an arrangement without a name."""
    zero = zero.astype(np.int32)
    if zero.size == 1:
        return zero.reshape(())
    axis = how.axis % len(shape)
    if zero.ndim == 1 and zero.size == shape[axis]:
        return zero.reshape([-1 if at == axis else 1 for at in range(len(shape))])
    if how.block and zero.ndim == len(shape):
        return np.repeat(zero, how.block, axis).take(range(shape[axis]), axis)
    if zero.ndim == 2 and len(shape) == 3 and zero.shape == (shape[0], shape[2]):  # directions, gates
        return zero[:, None, :]
    return None
