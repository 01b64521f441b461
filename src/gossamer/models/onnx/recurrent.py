"""recurrent: LSTM, GRU and RNN as torch's own, with the layout of ONNX around them.

    X [T, N, I] -> Y [T, D, N, H], Y_h [D, N, H], for LSTM also Y_c [D, N, H];   D = 2 when bidirectional

ONNX stacks the gates in the order i o f c (LSTM) and z r h (GRU), torch in the order i f c o and r z h.
Raises: ModelError for what torch's modules do not do: lengths for each sequence, peepholes, other activations,
clipping, input-forget coupling, batch first, and a GRU that resets before the product.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...errors import ModelError
from .graph import Node
from .layers import META, Layer, Weights

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


class Recurrent(nn.Module):
    """torch's recurrent module between axes in ONNX's order."""

    def __init__(self, rnn: nn.RNNBase, *, reverse: bool) -> None:
        super().__init__()
        self.rnn = rnn
        self.reverse = reverse

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, ...]:
        if isinstance(self.rnn, nn.LSTM):
            state: Any = None if h is None or c is None else (h, c)
        else:
            state = h
        y, last = self.rnn(x.flip(0) if self.reverse else x, state)
        y = y.unflatten(2, (2 if self.rnn.bidirectional else 1, self.rnn.hidden_size)).permute(0, 2, 1, 3)
        y = y.flip(0) if self.reverse else y
        return (y, *last) if isinstance(last, tuple) else (y, last)


def LSTM(node: Node, weights: Weights) -> Layer:
    return _layer(node, weights, nn.LSTM)


def GRU(node: Node, weights: Weights) -> Layer:
    return _layer(node, weights, nn.GRU)


def RNN(node: Node, weights: Weights) -> Layer:
    return _layer(node, weights, nn.RNN)


def _layer(node: Node, weights: Weights, kind: Any) -> Layer:
    w, r, b = (weights.constant(node, at) for at in (1, 2, 3))
    given = node.attributes
    inputs = (*node.inputs, *[""] * (8 - len(node.inputs)))
    direction = given.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    options: dict[str, Any] = {}
    activations = tuple(given.get("activations") or _ACTIVATIONS[node.op] * count)
    if node.op == "RNN" and activations == ("Relu",) * count:
        options["nonlinearity"] = "relu"
    elif activations != _ACTIVATIONS[node.op] * count:
        raise _unknown(node, f"activations {', '.join(activations)}")
    for broken, what in (
        (w is None or r is None or (b is None and inputs[3]), "weights that are not constant"),
        (inputs[4], "sequence_lens"),
        (inputs[7], "peepholes"),
        (given.get("layout"), "layout 1"),
        (given.get("clip"), "clip"),
        (given.get("input_forget"), "input_forget"),
        (node.op == "GRU" and not given.get("linear_before_reset"), "linear_before_reset 0"),
        (node.op == "LSTM" and bool(inputs[5]) != bool(inputs[6]), "only one of the two first states"),
    ):
        if broken:
            raise _unknown(node, what)
    assert w is not None
    assert r is not None
    hidden = r.tensor.shape[2]
    rnn = kind(w.tensor.shape[2], hidden, bias=b is not None, bidirectional=count == 2, **options, **META)
    for side, ending in enumerate(("", "_reverse")[:count]):
        biases = () if b is None else b.tensor[side].chunk(2)
        parts = [w.tensor[side], r.tensor[side], *biases]
        for name, part in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), parts, strict=False):
            gates = part.reshape(-1, hidden, *part.shape[1:])[list(_GATES[node.op])]
            setattr(rnn, f"{name}_l0{ending}", nn.Parameter(gates.reshape(part.shape).contiguous()))
    states = inputs[5:7] if node.op == "LSTM" else inputs[5:6]
    module = Recurrent(rnn, reverse=direction == "reverse")
    return Layer(module, (node.inputs[0], *states), w.label, b.label if b is not None else "")


def _unknown(node: Node, what: str) -> ModelError:
    return ModelError(
        f"node {node.name or node.outputs[0]!r} ({node.op}): {what} cannot be built. Export the network without it."
    )
