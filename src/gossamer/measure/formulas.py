"""Formulas: multiply-accumulates of the operators that have them, from shapes alone.

Every front end (torch, ONNX) counts with these, so that one network has one figure.

    convolution    N  H_out W_out  numel(weight)     weight [O, I / groups, K ...]; any number of axes
    transposed     N  H_in  W_in   numel(weight)     weight [I, O / groups, K ...]
    matmul         product of all different axes     [.., M, K] x [.., K, N] -> batch M K N
    einsum         product of all letters; none where no letter is summed, as in an outer product: nothing is added
    attention      B heads L_q L_k (d_k + d_v)       scores and weighted sum; a causal mask saves nothing
    recurrent      steps gates h (i + h)             4 gates LSTM, 3 GRU, 1 RNN; each direction, each layer
    resize         2^axes of linear, 4^axes of cubic interpolation, 0 of nearest, per output

Padding taps count: ordinary kernels execute them. Source: the definition of each operator; ResNet
(arXiv:1512.03385) and MobileNet (arXiv:1704.04861) use the same "multiply-adds".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..errors import MeasureError

Shape = Sequence[int]


def convolution(weight: Shape, output: Shape) -> int:
    """Weight [O, I / groups, K ...], output [N, O, ...] (without groups: each weight works at each position)."""
    return output[0] * prod(output[2:]) * prod(weight)


def transposed_convolution(weight: Shape, input: Shape) -> int:
    """Weight [I, O / groups, K ...], input [N, I, ...]."""
    return input[0] * prod(input[2:]) * prod(weight)


def matmul(left: Shape, right: Shape, output: Shape) -> int:
    """Shapes as numpy's matmul takes them: every element of the output is a sum over the axis that vanishes."""
    if not left or not right:
        raise MeasureError(f"matmul of shapes {list(left)} and {list(right)}: expected at least one axis.")
    return prod(output) * left[-1]


def einsum(equation: str, shapes: Sequence[Shape]) -> int:
    """Multiplications: the product of the sizes of all letters; an ellipsis stands for the broadcast axes."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if len(terms) != len(shapes):
        raise MeasureError(f"einsum {equation!r} has {len(terms)} operands, received {len(shapes)} shapes.")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        named = term.replace("...", "")
        hidden = len(shape) - len(named)
        if hidden < 0 or (hidden and "..." not in term):
            raise MeasureError(f"einsum {equation!r}: operand {term!r} does not fit the shape {list(shape)}.")
        at = term.find("...")
        letters = (
            [*named[:at], *(f"...{hidden - i}" for i in range(hidden)), *named[at:]] if hidden else named
        )
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    return prod(sizes.values())


def einsum_sums(equation: str) -> bool:
    """Whether a letter of the equation, or its ellipsis, is summed; without an arrow a repeated letter is."""
    terms, arrow, output = equation.replace(" ", "").partition("->")
    letters = terms.replace(",", "").replace("...", "")
    if not arrow:
        return any(letters.count(letter) > 1 for letter in letters)
    return not set(letters) <= set(output) or ("..." in terms and "..." not in output)


def attention(query: Shape, key: Shape, value: Shape) -> int:
    """[.., heads, L, d] each; with grouped queries key and value have fewer heads, which saves no product."""
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def recurrent(*, gates: int, input: int, hidden: int, steps: int, projection: int = 0) -> int:
    """One layer, one direction; `steps` is time steps x batch. `projection` is LSTM's proj_size."""
    state = projection or hidden
    return steps * (gates * hidden * (input + state) + projection * hidden)


def resize(output: Shape, *, axes: int, mode: str) -> int:
    """Interpolation over `axes` spatial axes; mode nearest, linear or cubic."""
    taps = {"nearest": 0, "linear": 1 << axes, "cubic": 1 << 2 * axes}
    if mode not in taps:
        raise MeasureError(f"resize: unknown mode {mode!r}, expected one of {', '.join(taps)}.")
    return prod(output) * taps[mode]
