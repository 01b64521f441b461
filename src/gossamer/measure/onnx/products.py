"""products: ONNX operators that multiply and accumulate, counted with the formulas of `formulas`.

A rule takes a `Call` (shapes and attributes of one node) and returns its Cost without traffic. WEIGHTED says at
which inputs the factors of the product stand that may be stored weights.
Operators of com.microsoft (what ONNX Runtime's quantizer and optimizers write) go by their plain names; only
Attention has two meanings.
Source: the operator specifications of ONNX (onnx.ai/onnx/operators) and of ONNX Runtime (docs/ContribOperators.md).
"""

from __future__ import annotations

from math import prod

from ...cost import Cost
from .. import formulas
from . import attention
from .call import Call, Rule

REQUANTIZED = {"multiply": 1, "add": 1}  # an integer result gets its scale and zero point


def _biased(call: Call, macs: int, bias: int) -> Cost:
    return Cost.of_macs(macs, bias_adds=prod(call.output) if call.has(bias) else 0)


def _with(cost: Cost, count: int, **kinds: float) -> Cost:
    return cost + Cost.of_elements(count, **kinds)


def _convolution(*, weight: int = 1, bias: int = 2, requantized: bool = False) -> Rule:
    def rule(call: Call) -> Cost:
        cost = _biased(call, formulas.convolution(call.shape(weight), call.output), bias)
        return _with(cost, prod(call.output), **REQUANTIZED) if requantized else cost

    return rule


def _fused_convolution(call: Call) -> Cost:
    """Conv, a sum with a fourth input, and an activation."""
    cost = _biased(call, formulas.convolution(call.shape(1), call.output), 2)
    if call.has(3):
        cost = _with(cost, prod(call.output), add=1)
    return _activated(call, cost)


def _activated(call: Call, cost: Cost) -> Cost:
    name = call.get("activation", "")
    kind = "compare" if name in ("Relu", "Clip", "LeakyRelu", "HardSigmoid") else "transcendental"
    return _with(cost, prod(call.output), **{kind: 1}) if name else cost


def _transposed(call: Call) -> Cost:
    return _biased(call, formulas.transposed_convolution(call.shape(1), call.shape(0)), 2)


def _gemm(call: Call) -> Cost:
    inner = call.shape(0)[0 if call.get("transA", 0) else 1]
    biased = call.has(2) and call.get("beta", 1.0) != 0
    return Cost.of_macs(prod(call.output) * inner, bias_adds=prod(call.output) if biased else 0)


def _matmul(*, right: int = 1, bias: int | None = None, requantized: bool = False) -> Rule:
    def rule(call: Call) -> Cost:
        macs = formulas.matmul(call.shape(0), call.shape(right), call.output)
        cost = Cost.of_macs(macs) if bias is None else _biased(call, macs, bias)
        return _with(cost, prod(call.output), **REQUANTIZED) if requantized else cost

    return rule


def _fused_matmul(call: Call) -> Cost:
    left = call.shape(0)
    transposed, batch = call.get("transA", 0), call.get("transBatchA", 0)
    at = -1 if not transposed or len(left) < 2 else 0 if batch else -2
    return _activated(call, Cost.of_macs(prod(call.output) * left[at]))


def _dynamic_matmul(call: Call) -> Cost:
    """Float activations are quantized in the call: minimum, maximum, scale."""
    cost = _biased(call, formulas.matmul(call.shape(0), call.shape(1), call.output), 4)
    cost = _with(cost, prod(call.shape(0)), compare=4, multiply=1, add=1)
    return _with(cost, prod(call.output), multiply=1)


def _scaled_matmul(call: Call) -> Cost:
    cost = _biased(call, formulas.matmul(call.shape(0), call.shape(1), call.output), 6)
    return _with(cost, prod(call.output), multiply=1)


def _quantized_gemm(call: Call) -> Cost:
    inner = call.shape(0)[0 if call.get("transA", 0) else 1]
    cost = _biased(call, prod(call.output) * inner, 6)
    return _with(cost, prod(call.output), **REQUANTIZED)


def _narrow_matmul(call: Call) -> Cost:
    """Weights of a few bits [N, K], scaled in blocks while they are read: 1 multiply and 1 add per weight."""
    outs, inner = call.attributes["N"], call.attributes["K"]
    rows = prod(call.shape(0)[:-1])
    return _with(_biased(call, rows * outs * inner, 5), outs * inner, multiply=1, add=1)


def _einsum(call: Call) -> Cost:
    shapes = [shape for shape in call.inputs if shape is not None]
    if len(shapes) > 1:
        equation = call.attributes["equation"]
        products = formulas.einsum(equation, shapes)
        if formulas.einsum_sums(equation):
            return Cost.of_macs(products)
        return Cost.of_elements(products, multiply=len(shapes) - 1)
    sums = prod(shapes[0]) > prod(call.output)
    return Cost.of_elements(prod(shapes[0]) if sums else 0, add=1)


_CELLS: dict[str, tuple[int, dict[str, float]]] = {  # gates, and the operations per unit of a step
    "LSTM": (4, {"transcendental": 5, "multiply": 3, "add": 1}),
    "GRU": (3, {"transcendental": 3, "multiply": 3, "add": 2}),
    "RNN": (1, {"transcendental": 1}),
}


def _recurrent(cell: str) -> Rule:
    """Input [L, B, I]; a bias of the input and one of the state for every gate, as torch and ONNX have it."""
    gates, kinds = _CELLS[cell]

    def rule(call: Call) -> Cost:
        input, hidden = call.shape(0), call.attributes["hidden_size"]
        steps = prod(input[:-1]) * call.shape(1)[0]  # of all directions
        macs = formulas.recurrent(gates=gates, input=input[-1], hidden=hidden, steps=steps)
        biases = 2 * gates * hidden * steps if call.has(3) else 0
        return _with(Cost.of_macs(macs, bias_adds=biases), steps * hidden, **kinds)

    return rule


def _resize(call: Call) -> Cost | None:
    mode = call.get("mode", "nearest")
    before, after = call.shape(0), call.output
    if call.get("antialias", 0) and prod(after) < prod(before):
        return None  # the window grows with the scale
    spatial = len(after) - 2 if before[:2] == after[:2] else len(after)
    axes = len(call.get("axes", ())) or spatial
    return Cost.of_macs(formulas.resize(after, axes=axes, mode=mode))


def _grid_sample(call: Call) -> Cost:
    mode = call.get("mode", "linear").removeprefix("bi")
    return Cost.of_macs(formulas.resize(call.output, axes=len(call.output) - 2, mode=mode))


RULES: dict[str, Rule] = {
    "Conv": _convolution(),
    "ConvTranspose": _transposed,
    "FusedConv": _fused_convolution,
    "ConvInteger": _convolution(bias=4),
    "QLinearConv": _convolution(weight=3, bias=8, requantized=True),
    "Gemm": _gemm,
    "FusedGemm": lambda call: _activated(call, _gemm(call)),
    "QGemm": _quantized_gemm,
    "MatMul": _matmul(),
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "MatMulInteger": _matmul(),
    "MatMulInteger16": _matmul(),
    "MatMulIntegerToFloat": _scaled_matmul,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "QLinearMatMul": _matmul(right=3, requantized=True),
    "MatMulNBits": _narrow_matmul,
    "Einsum": _einsum,
    **attention.RULES,
    "LSTM": _recurrent("LSTM"),
    "GRU": _recurrent("GRU"),
    "RNN": _recurrent("RNN"),
    "DynamicQuantizeLSTM": _recurrent("LSTM"),
    "Resize": _resize,
    "Upsample": _resize,
    "GridSample": _grid_sample,
}

WEIGHTED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "ConvInteger", "MatMulNBits"), (1,)),
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "FusedMatMulActivation"), (0, 1)),
    **dict.fromkeys(("MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat"), (0, 1)),
    "DynamicQuantizeMatMul": (1,),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), (0, 3)),
    "Einsum": (0, 1, 2, 3),
}
RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
FOLDING = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # could absorb a norm that follows
