"""ops: what each operator of ONNX costs, from the shapes of its inputs and outputs and its attributes.

    products     convolutions, matrix products, attention, recurrent layers, interpolation: products.RULES
    RULES        other operators whose count depends on more than one shape: norms, pools
    ELEMENTWISE  operations of each kind per element of the output; may overwrite their input
    PER_OUTPUT   the same, of operators that need their input to the end
    REDUCTIONS   operations of each kind per element of the input
    MOVES        no operations, but bytes;  VIEWS  neither: ONNX Runtime hands the same memory on

An operator in none of them has no rule, and the report lists it as not counted. The weights of the kinds are
those of measure/elementwise.py, so that a network and the file it is packed into have one figure.
Source: the operator specifications of ONNX (onnx.ai/onnx/operators) and of ONNX Runtime (docs/ContribOperators.md).
"""

from __future__ import annotations

from math import prod

from ...cost import Cost
from . import products as products
from .call import Call, Rule
from .products import REQUANTIZED

FAMILIES = ("", "ai.onnx", "com.microsoft")  # domains whose operators are known


def cost(call: Call) -> Cost | None:
    """The Cost of a call without its traffic; None for an operator without a rule."""
    rule = products.RULES.get(call.op) or RULES.get(call.op)
    if rule is not None:
        return rule(call)
    if call.op in MOVES or call.op in VIEWS:
        return Cost()
    if call.op in ELEMENTWISE or call.op in PER_OUTPUT:
        return Cost.of_elements(prod(call.output), **(ELEMENTWISE.get(call.op) or PER_OUTPUT[call.op]))
    if call.op in REDUCTIONS:
        return Cost.of_elements(prod(call.shape(0)), **REDUCTIONS[call.op])
    return None


def name(op: str, domain: str) -> str:
    """The name by which the tables know an operator; those of other domains keep their domain."""
    if domain not in FAMILIES:
        return f"{domain}.{op}"
    return f"{domain}.{op}" if domain == "com.microsoft" and op == "Attention" else op


def _variadic(kind: str, *, more: int = 0) -> Rule:
    """n inputs need n - 1 operations per element; a mean one more."""

    def rule(call: Call) -> Cost:
        joined = sum(shape is not None for shape in call.inputs) - 1
        return Cost.of_elements(prod(call.output), **{kind: joined, **({"multiply": more} if more else {})})

    return rule


def _pool(*, root: bool = False, requantized: bool = False, **kinds: int) -> Rule:
    """Operations per tap of the window and output; `root` of the sum of powers."""

    def rule(call: Call) -> Cost:
        taps = prod(call.attributes["kernel_shape"])
        each: dict[str, float] = {kind: taps * count for kind, count in kinds.items()}
        if root:
            each["transcendental"] = 1
        cost = Cost.of_elements(prod(call.output), **each)
        return cost + Cost.of_elements(prod(call.output), **REQUANTIZED) if requantized else cost

    return rule


def _max_pool(call: Call) -> Cost:
    return Cost.of_elements(prod(call.output), compare=prod(call.attributes["kernel_shape"]) - 1)


def _norm(*, scale: int = 1, skip: bool = False) -> Rule:
    """Mean and variance of every group, then normalize: 7 operations per element, 5 without scale and shift."""

    def rule(call: Call) -> Cost:
        shape = call.shape(0)
        scaled = int(call.has(scale))
        added = 1 + int(call.has(scale + 2)) if skip else 0  # the other branch, and its bias
        each = Cost.of_elements(prod(shape), add=3 + scaled + added, multiply=2 + scaled)
        return each + Cost.of_elements(_groups(call, shape), transcendental=1)

    return rule


def _groups(call: Call, shape: tuple[int, ...]) -> int:
    """How many means a norm takes."""
    if call.op == "InstanceNormalization":
        return shape[0] * shape[1]
    if call.op in ("GroupNormalization", "GroupNorm"):
        return shape[0] * int(call.attributes["num_groups" if call.op == "GroupNormalization" else "groups"])
    axis = call.get("axis", -1)
    return prod(shape[: axis % len(shape)]) if shape else 1


def _group_norm(call: Call) -> Cost:
    """com.microsoft: with x * sigmoid(x) after it where `activation` is 1."""
    cost = _norm()(call)
    assert cost is not None
    swish = Cost.of_elements(prod(call.output), transcendental=1, multiply=1)
    return cost + swish if call.get("activation", 0) else cost


def _rms(*, scale: int = 1, skip: bool = False) -> Rule:
    def rule(call: Call) -> Cost:
        scaled = int(call.has(scale))
        added = 1 + int(call.has(scale + 1)) if skip else 0
        return Cost.of_elements(prod(call.shape(0)), add=1 + added, multiply=2 + scaled)

    return rule


def _embedded_norm(call: Call) -> Cost:
    """Word, position and segment embeddings summed and normalized; the look-ups are free."""
    parts = sum(call.has(at) for at in (2, 3, 4)) - 1
    rows = prod(call.output[:-1])
    return Cost.of_elements(prod(call.output), add=4 + parts, multiply=3) + Cost.of_elements(
        rows, transcendental=1
    )


def _response_norm(call: Call) -> Cost:
    """x / (k + a sum x^2)^b over `size` channels: the sum has `size` adds."""
    size = call.attributes["size"]
    return Cost.of_elements(prod(call.output), add=size + 1, multiply=3, transcendental=1)


def _biased_gelu(call: Call) -> Cost:
    return Cost.of_elements(prod(call.output), transcendental=1, add=int(call.has(1)))


def _scattered(call: Call) -> Cost:
    """A copy, and one operation per update where updates are combined."""
    combined = call.get("reduction", "none")
    kind = {"add": "add", "mul": "multiply", "max": "compare", "min": "compare"}.get(combined, "")
    return Cost.of_elements(prod(call.shape(2)), **{kind: 1}) if kind else Cost()


RULES: dict[str, Rule] = {
    "Sum": _variadic("add"),
    "Mean": _variadic("add", more=1),
    "Max": _variadic("compare"),
    "Min": _variadic("compare"),
    "MaxPool": _max_pool,
    "AveragePool": _pool(add=1),
    "LpPool": _pool(add=1, multiply=1, root=True),
    "QLinearAveragePool": _pool(add=1, requantized=True),
    "LayerNormalization": _norm(),
    "InstanceNormalization": _norm(),
    "GroupNormalization": _norm(),
    "GroupNorm": _group_norm,
    "SkipLayerNormalization": _norm(scale=2, skip=True),
    "RMSNormalization": _rms(),
    "SimplifiedLayerNormalization": _rms(),
    "SkipSimplifiedLayerNormalization": _rms(scale=2, skip=True),
    "EmbedLayerNormalization": _embedded_norm,
    "LRN": _response_norm,
    "BiasGelu": _biased_gelu,
    "FastGelu": _biased_gelu,
    **dict.fromkeys(("ScatterElements", "ScatterND", "Scatter"), _scattered),
}


def _each(names: str, **kinds: float) -> dict[str, dict[str, float]]:
    """The same operations for every name of the list."""
    return dict.fromkeys(names.split(), kinds)


ELEMENTWISE: dict[str, dict[str, float]] = {
    **_each("Add Sub Neg Round Floor Ceil", add=1),
    **_each("Mul Div Reciprocal Mod", multiply=1),
    **_each("Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor BitShift", compare=1),
    **_each("BitwiseAnd BitwiseOr BitwiseXor BitwiseNot", compare=1),
    **_each("Relu Clip ThresholdedRelu Abs Sign Where IsNaN IsInf", compare=1),
    **_each(
        "Exp Log Sqrt Pow Erf Sin Cos Tan Sinh Cosh Tanh Asin Acos Atan Asinh Acosh Atanh", transcendental=1
    ),
    **_each("Sigmoid Gelu Softplus", transcendental=1),
    **_each("Elu Selu Celu", transcendental=1, compare=1),
    **_each("Swish", transcendental=1, multiply=1),
    **_each("QuickGelu", transcendental=1, multiply=2),
    **_each("Mish", transcendental=2, multiply=1),
    **_each("LeakyRelu PRelu", compare=1, multiply=1),
    **_each("Shrink", compare=2, add=1),
    **_each("Softsign", compare=1, add=1, multiply=1),
    **_each("HardSigmoid", add=1, compare=2, multiply=1),
    **_each("HardSwish", add=1, compare=2, multiply=2),
    **_each("QLinearAdd", add=2, multiply=1),
    **_each("QLinearMul", add=1, multiply=2),
}

PER_OUTPUT: dict[str, dict[str, float]] = {
    **_each("Softmax LogSoftmax", transcendental=1),
    **_each("Hardmax", compare=1),
    **_each("BatchNormalization", multiply=1, add=1),
    **_each("MeanVarianceNormalization", add=3, multiply=2),
    **_each("LpNormalization", add=1, multiply=2),
    **_each("CumSum", add=1),
    **_each("CumProd", multiply=1),
    **_each("RotaryEmbedding", multiply=2, add=1),
    **_each("QuantizeLinear", multiply=1, add=1, compare=2),
    **_each("DequantizeLinear", multiply=1, add=1),
    **_each("DynamicQuantizeLinear", multiply=1, add=1, compare=4),
    **_each("QLinearSigmoid QLinearSoftmax", transcendental=1, **REQUANTIZED),
    **_each("QLinearLeakyRelu", compare=1, add=1, multiply=2),
    **_each("QLinearConcat", **REQUANTIZED),
    **_each("QLinearWhere", compare=1, **REQUANTIZED),
}

REDUCTIONS: dict[str, dict[str, float]] = {
    **_each(
        "ReduceSum ReduceMean ReduceL1 GlobalAveragePool QLinearGlobalAveragePool QLinearReduceMean", add=1
    ),
    **_each("ReduceProd", multiply=1),
    **_each("ReduceMax ReduceMin ArgMax ArgMin GlobalMaxPool", compare=1),
    **_each("ReduceL2 ReduceSumSquare GlobalLpPool", add=1, multiply=1),
    **_each("ReduceLogSum", add=1),
    **_each("ReduceLogSumExp", add=1, transcendental=1),
}

MOVES = frozenset(
    _each("""
    BitCast Cast CastLike CenterCropPad Compress Concat ConstantOfShape DepthToSpace Expand EyeLike Gather
    GatherElements GatherND MaxUnpool NonZero OneHot Pad Range ReverseSequence Shape Size Slice SpaceToDepth Split
    TensorScatter Tile Transpose Trilu
    """)
)
VIEWS = frozenset(_each("Reshape Squeeze Unsqueeze Flatten Identity Dropout"))
LOOKUPS = frozenset(_each("Gather GatherElements GatherND Slice Compress"))  # read what they return
VARIADIC_IN_PLACE = ("Sum", "Max", "Min", "Mean", "BiasGelu", "FastGelu")
IN_PLACE_CAPABLE = frozenset((*ELEMENTWISE, *VARIADIC_IN_PLACE))
