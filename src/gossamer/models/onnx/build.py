"""build: a folded and fused graph -> OnnxNetwork: layers get their names, constants become arguments, buffers or parameters."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ...errors import ModelError
from . import layers, recurrent, shapes
from .calling import check, signature
from .graph import Constant, Graph, Node, everywhere
from .layers import Layer, Weights
from .names import Names
from .network import OnnxNetwork, Program, Step, Value, Weight, network_class
from .operators import OPERATORS, operators
from .rounding import FAKE_QUANTIZE, fake_quantize
from .values import Kernel, Known

LAYERS = {**operators(layers), **operators(recurrent), FAKE_QUANTIZE: fake_quantize}
SHAPES = operators(shapes)
KNOWN = frozenset((*OPERATORS, *operators(layers), *operators(recurrent), "Constant", "If"))
SMALL = 16  # entries of a constant that is written into the call
NUMBERS = 1024  # entries of a constant that shape arithmetic may use
# operators whose constants are weights: not the scales of Resize or the values of OneHot
_LEARN = "Add|Sub|Mul|Div|MatMul|Gemm|Einsum|Conv|ConvTranspose|PRelu|(Batch|Instance|Layer|Group|RMS)Normalization"
_MOVE = "Concat|Expand|Gather|Where|Tile|Slice|Transpose|Reshape|Unsqueeze|Squeeze|Identity"
LEARNT = re.compile(f"{_LEARN}|{_MOVE}")
SHARED = (
    "Conv",
    "ConvTranspose",
    "MatMul",
    "Gemm",
    "Gather",
)  # layers that may be one module at several places


def build(graph: Graph) -> OnnxNetwork:
    """The module of a graph."""
    return _Builder(graph).network


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.network = network_class(graph.inputs)()
        self.names = Names(self.network)
        self.weights = Weights(graph)
        self._modules: dict[tuple[Any, ...], str] = {}
        self._stored: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._numbers: set[str] = set()  # values that are Known when the network runs
        self._readers = graph.readers()
        steps = self._program(_used(graph.nodes, graph.outputs))
        outputs = tuple(self._output(name) for name in graph.outputs)
        self.network.program = Program(_releasing(steps, outputs), outputs)
        self.network.opset = graph.opset
        self.network.input_names = graph.inputs
        self.network.output_names = graph.outputs
        if graph.shape is not None:
            self.network.input_shape = graph.shape

    def _program(self, nodes: list[Node]) -> list[Step]:
        return [self._step(node) for node in nodes]

    def _step(self, node: Node) -> Step:
        place = f"node {node.name or node.outputs[0]!r} ({node.op})"
        if node.op == "If":
            taken = [node.attributes[name] for name in ("then_branch", "else_branch")]
            programs = [
                Program(
                    tuple(self._program(_used(inner.nodes, inner.outputs))),
                    tuple(self._output(name) for name in inner.outputs),
                )
                for inner in taken
            ]
            return Step(
                place, (self._output(node.inputs[0]),), node.outputs, {}, branches=(programs[0], programs[1])
            )
        self._refuse_outputs(node, place)
        layer = LAYERS[node.op](node, self.weights) if node.op in LAYERS else None
        if layer is not None:
            path = self._layer(node, layer)
            arguments = tuple(self._tensor(value) for value in layer.inputs)
            return Step(
                place,
                arguments,
                node.outputs,
                {},
                layer=path,
                before=layer.before,
                after=layer.after,
            )
        function = OPERATORS[node.op]
        check(node, function)
        known = self._known(node)
        arguments = tuple(self._argument(node, at, function, known) for at in range(len(node.inputs)))
        return Step(
            place,
            arguments,
            node.outputs,
            node.attributes,
            function=function,
            known=SHAPES[node.op] if known else None,
        )

    def _refuse_outputs(self, node: Node, place: str) -> None:
        """Outputs behind the first that somebody reads must be made."""
        single = node.op in OPERATORS and OPERATORS[node.op].__annotations__["return"] == "Tensor"
        for at, value in enumerate(node.outputs[1:], 2):
            if single and (value in self._readers or value in self.graph.outputs):
                raise ModelError(
                    f"{place}: output {at} ({value}) cannot be built. Export the network without reading it."
                )

    def _known(self, node: Node) -> bool:
        """Whether a node may be computed with numbers alone; its results may then be numbers too."""
        if node.op in ("Shape", "Size", "SequenceLength"):
            self._numbers.update(node.outputs)
        if node.op not in SHAPES:
            return False
        given = [value for value in node.inputs if value]
        numbers = [value for value in given if value in self._numbers]
        rest = [self.graph.constants.get(value) for value in given if value not in self._numbers]
        if not numbers or any(constant is None or constant.tensor.numel() > NUMBERS for constant in rest):
            return False
        self._numbers.update(node.outputs)
        return True

    def _layer(self, node: Node, layer: Layer) -> str:
        """The path of a layer, which is put there; the same weights with the same options are one module."""
        key = None
        if node.op in SHARED:
            sources = [self.graph.constants[v].source for v in node.inputs if v in self.graph.constants]
            key = (node.op, repr(sorted(node.attributes.items())), *sources)
            if None in sources:
                key = None
        if key is not None and key in self._modules:
            return self._modules[key]
        path = self.names.layer(
            scope=node.scope,
            weight=layer.weight,
            bias=layer.bias,
            node=node.name,
            op=type(layer.module).__name__,
            number=self._count(node.op),
        )
        holder, leaf = self.names.place(path)
        holder.add_module(leaf, layer.module)
        if key is not None:
            self._modules[key] = path
        return path

    def _argument(self, node: Node, at: int, function: Kernel, known: bool) -> Any:
        value, kind = node.inputs[at], signature(function).kind(at)
        constant = self.graph.constants.get(value)
        if not value:
            return None
        if constant is None:
            return Value(value)
        if known:
            return Known.of_tensor(constant.tensor)
        if kind in ("Ints", "Floats"):
            return tuple(constant.tensor.reshape(-1).tolist())
        single = constant.tensor.numel() == 1
        if kind == "Scalar" and single:
            return constant.tensor.item()
        if kind == "Operand" and single and self._spreads(node, at, constant.tensor):
            return constant.tensor.item()
        return self._tensor(value)

    def _spreads(self, node: Node, at: int, number: Tensor) -> bool:
        """Whether a constant of one element changes no shape when it is taken as a number."""
        if number.ndim == 0:
            return True
        if node.op == "Gather":
            return False
        other = node.inputs[1 - at] if len(node.inputs) == 2 else ""
        return self.graph.rank(other) >= number.ndim

    def _output(self, name: str) -> Any:
        return Value(name) if name not in self.graph.constants else self._tensor(name)

    def _tensor(self, value: str) -> Any:
        """A constant where a tensor is wanted: written down if small, else a parameter or buffer."""
        if not value:
            return None
        constant = self.graph.constants.get(value)
        if constant is None:
            return Value(value)
        learnt = any(LEARNT.fullmatch(node.op) for node in self._readers.get(value, ()))
        trained = constant.weight and learnt and bool(constant.tensor.isfinite().all())
        if constant.tensor.numel() <= SMALL and not trained and not constant.tensor.is_complex():
            return Known.of_tensor(constant.tensor)
        if value not in self._stored:
            self._stored[value] = self._store(constant, trained)
        return Weight(self._stored[value])

    def _store(self, constant: Constant, trained: bool) -> str:
        path = self.names.weight(constant.label, self._count("constant"))
        holder, leaf = self.names.place(path)
        if not trained:
            holder.register_buffer(leaf, constant.tensor)
        elif constant.tensor.ndim > 1:
            holder.register_parameter(leaf, self.weights.matrix(constant))
        else:
            holder.register_parameter(leaf, nn.Parameter(constant.tensor))
        return path

    def _count(self, kind: str) -> int:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return self._counts[kind]


def _used(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes that the outputs need."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            kept.append(node)
            for each in everywhere([node]):
                wanted.update(each.inputs)
            for inner in node.attributes.values():
                if isinstance(inner, Graph):
                    wanted.update(inner.outputs)
    return kept[::-1]


def _releasing(steps: list[Step], outputs: tuple[Any, ...]) -> tuple[Step, ...]:
    """The steps, each with the values that are read for the last time there."""
    kept = {each.name for each in outputs if isinstance(each, Value)}
    done: list[Step] = []
    for step in reversed(steps):
        read = dict.fromkeys(_reads(step))
        last = tuple(name for name in (*read, *step.outputs) if name and name not in kept)
        kept.update(read)
        done.append(replace(step, releases=tuple(dict.fromkeys(last))))
    return tuple(done[::-1])


def _reads(step: Step) -> list[str]:
    found = [each.name for each in step.arguments if isinstance(each, Value)]
    for program in step.branches or ():
        made = {name for inner in program.steps for name in inner.outputs}
        inside = [name for inner in program.steps for name in _reads(inner)]
        inside += [each.name for each in program.outputs if isinstance(each, Value)]
        found += [name for name in inside if name not in made]
    return found
