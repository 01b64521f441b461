"""epilogue: what follows a layer of signs up to the next sign, folded into scale and offset or into integer thresholds.

A layer gives whole numbers v (times a scale), and then, per channel, a chain of functions that rise or fall throughout:
multiply, add, batch norm, Relu, Clip, LeakyRelu, PRelu, with at most one MaxPool among them. If it ends in a sign, the sign
is a comparison of v with a threshold:

    sign(f(v)) = +1  where  v >= T       f rises        the switch is found by bisection over f itself, computed in float32
                     where  v <= T       f falls        as the graph does: no real number is rounded on the way
    sign(g(max f(v)))  = max sign(g(f(v)))              where g rises,
                       = min sign(g(f(v)))              where it falls

If it does not, the multiplications and additions at its beginning become y = scale v + offset, rounded to float32 once.
Source: binary networks pass bits between layers in this way since Umuroglu et al., "FINN", FPGA 2017, arXiv:1612.07119,
section 4.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import graph
from .lowering import Network

HUGE = np.float32(1e30)
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Step:
    """One function of a channel's value: float32 [O] -> float32 [O]; `affine`: (multiply, add), where it is no more."""

    run: Function
    affine: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Epilogue:
    """What follows a layer: its steps, and the sign that ends them, if one does.

    outputs[i]: the name after step i, where no sign follows
    """

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    sign: str | None = None  # the output of the sign
    pool: int | None = None  # the node of the pooling
    before: int = 0  # steps before it

    def affine(self, scale: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """(scale, offset, steps) with the steps at the beginning folded in; float64 [O]."""
        count = 0
        for step in self.steps:
            if step.affine is None:
                break
            factor, shift = (part.astype(np.float64) for part in step.affine)
            scale, offset = scale * factor, offset * factor + shift
            count += 1
        return scale, offset, count

    def thresholds(self, first: Function, products: int, outputs: int) -> tuple[np.ndarray, ...]:
        """(thresholds int32 [O], falls bool [O], flips bool [O]) for v in -products .. products.

        `first`: what the layer makes of v. A channel that falls takes turned signs of its weights, so that its sign is
        +1 where v is at least the threshold; a channel that flips is to be turned over after the pooling.
        """
        after = self.steps[self.before :]
        flips = np.zeros(outputs, bool)
        if self.pool is not None:
            low, high = (_run(after, np.full(outputs, end)) >= 0 for end in (-HUGE, HUGE))
            flips = low & ~high

        def plus(v: np.ndarray) -> np.ndarray:
            signs: np.ndarray = (_run(self.steps, first(v)) >= 0) != flips
            return signs

        most = np.full(outputs, products, np.int64)
        low, high = plus(-most), plus(most)
        falls = low & ~high
        turned = np.where(falls, -1, 1)
        # the least u = turned v with sign +1: below `under` it is -1, from `over` on +1
        under, over = -most - 1, most + 1
        over = np.where(low & high, -most, over)
        under = np.where(~low & ~high, most, under)
        while (over - under > 1).any():
            middle = (over + under) // 2
            positive = plus(np.clip(middle, -most, most) * turned)
            open_ = over - under > 1
            over, under = (
                np.where(open_ & positive, middle, over),
                np.where(open_ & ~positive, middle, under),
            )
        return over.astype(np.int32), falls, flips


def _run(steps: Sequence[Step], values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in steps:
            values = step.run(values)
    return values


def signs(network: Network) -> dict[str, tuple[str, int]]:
    """The signs of a network: output -> (input, node). One is Where(x >= 0, 1, -1), as blocks.Sign is exported."""
    found = {}
    for index, (node, _) in enumerate(network.nodes):
        if node.op != "Where" or len(node.inputs) != 3:
            continue
        plus, minus = (network.constant(name) for name in node.inputs[1:])
        compared = network.producers.get(node.inputs[0])
        if not (_is(plus, 1) and _is(minus, -1)) or compared is None:
            continue
        comparison = network.nodes[compared][0]
        if comparison.op == "GreaterOrEqual" and _is(network.constant(comparison.inputs[1]), 0):
            found[node.outputs[0]] = (comparison.inputs[0], index)
    return found


def _is(values: np.ndarray | None, wanted: float) -> bool:
    return values is not None and values.size == 1 and values.item() == wanted


def follow(
    network: Network, name: str, outputs: int, rank: int, signed: Mapping[str, tuple[str, int]]
) -> Epilogue:
    """What follows the output `name` of a layer, as far as nothing else reads what lies between.

    rank: axes of the output; of four the second is the channels, else the last is
    """
    ends = {source: output for output, (source, _) in signed.items()}
    steps: list[Step] = []
    names: list[str] = []
    pool, before = None, 0
    while (reader := network.only_reader(name)) is not None:
        node, attributes = network.nodes[reader]
        if name in ends and node.op == "GreaterOrEqual":
            return Epilogue(tuple(steps), (), ends[name], pool, before)
        if pool is None and rank == 4 and pools(node, attributes):
            pool, before = reader, len(steps)
        elif step := _step(network, node, attributes, name, outputs, rank):
            steps.append(step)
        else:
            break
        name = node.outputs[0]
        names.append(name)
    kept = before if pool is not None else len(steps)
    return Epilogue(tuple(steps[:kept]), tuple(names[:kept]))


def pools(node: graph.Node, attributes: graph.Attributes) -> bool:
    """True for a MaxPool that BinaryMaxPool serves."""
    lists = attributes.lists
    kernel, pads = lists.get("kernel_shape", ()), lists.get("pads", (0,) * 4)
    return (
        node.op == "MaxPool"
        and len(kernel) == 2
        and set(lists.get("dilations", (1,))) == {1}
        and len(node.outputs) == 1
        and not attributes.numbers.get("ceil_mode", 0)
        and attributes.texts.get("auto_pad", "NOTSET") == "NOTSET"
        and all(pad < kernel[axis % 2] for axis, pad in enumerate(pads))
    )


def _step(
    network: Network, node: graph.Node, attributes: graph.Attributes, name: str, outputs: int, rank: int
) -> Step | None:
    """The function of a node that takes `name` and constants, or None."""
    others = [network.constant(one) for one in node.inputs if one and one != name]
    if node.domain not in ("", "ai.onnx") or any(values is None for values in others):
        return None
    held = [values for values in others if values is not None]
    first = node.inputs[0] == name
    if node.op == "BatchNormalization":
        vectors = [values for values in held if values.shape == (outputs,)]
        return _norm(vectors, attributes) if rank in (2, 4) and len(vectors) == 4 else None
    constants = [found for values in held if (found := _per_channel(values, outputs, rank)) is not None]
    if len(constants) < len(held):
        return None
    if (
        node.op in ("Mul", "Add", "Sub", "Div")
        and len(constants) == 1
        and (first or node.op in ("Mul", "Add"))
    ):
        return _arithmetic(node.op, constants[0])
    if node.op == "Relu":
        return Step(lambda v: np.maximum(v, 0))
    if node.op == "Clip" and first and len(constants) == len(node.inputs) - 1 == 2:
        low, high = constants
        return Step(lambda v: np.minimum(np.maximum(v, low), high))
    if node.op == "LeakyRelu":
        constants = [np.full(outputs, attributes.numbers.get("alpha", 0.01), np.float32)]
    if node.op in ("LeakyRelu", "PRelu") and first and len(constants) == 1 and (constants[0] >= 0).all():
        slope = constants[0]
        return Step(lambda v: np.where(v < 0, slope * v, v))
    return None


def _arithmetic(op: str, by: np.ndarray) -> Step:
    one, none = np.ones_like(by), np.zeros_like(by)
    if op == "Mul":
        return Step(lambda v: v * by, (by, none))
    if op == "Div":
        with np.errstate(divide="ignore"):
            return Step(lambda v: v / by, (1 / by.astype(np.float64), none))
    if op == "Add":
        return Step(lambda v: v + by, (one, by))
    return Step(lambda v: v - by, (one, -by))


def _norm(vectors: Sequence[np.ndarray], attributes: graph.Attributes) -> Step | None:
    scale, bias, mean, variance = (vector.astype(np.float32) for vector in vectors)
    if attributes.numbers.get("training_mode", 0):
        return None
    root = np.sqrt(variance + np.float32(attributes.numbers.get("epsilon", 1e-5)))
    factor = scale.astype(np.float64) / root
    return Step(lambda v: (v - mean) / root * scale + bias, (factor, bias - mean * factor))


def _per_channel(values: np.ndarray, outputs: int, rank: int) -> np.ndarray | None:
    """float32 [outputs] of a constant that is one number, or one for each channel; None of any other."""
    if values.dtype != np.float32 or values.ndim > rank:
        return None
    if values.size == 1:
        return np.full(outputs, values.item(), np.float32)
    channels = (outputs, 1, 1) if rank == 4 else (outputs,)
    return values.reshape(-1) if values.shape == (1,) * (values.ndim - len(channels)) + channels else None
