"""Nodes that compute element by element, and reductions."""

from __future__ import annotations

import numpy as np

from onnx_cases import PICTURE, X, case, ints, normal, number, positive, truth, whole

ELEMENTWISE = [
    *(
        case(op, X)
        for op in ("Abs", "Neg", "Sign", "Exp", "Floor", "Ceil", "Erf", "Sin", "Cos", "Atan", "Sinh")
    ),
    *(case(op, X) for op in ("Cosh", "Asinh", "Tanh", "Sigmoid", "Relu", "Softplus", "Softsign", "Identity")),
    *(case(op, np.tanh(X)) for op in ("Asin", "Acos", "Atanh", "Tan")),
    *(case(op, positive(2, 3)) for op in ("Log", "Sqrt", "Reciprocal")),
    case("Acosh", positive(2, 3) + 1),
    case("Round", np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4], np.float32)),
    *(case(op, X, normal(3, 1, seed=1)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, X, number(1.5), constant=(1,)) for op in ("Add", "Sub", "Mul", "Div", "Pow")[:4]),
    *(case(op, number(1.5), X, constant=(0,)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, whole(4, 5), whole(5, low=1, seed=1)) for op in ("Add", "Sub", "Mul", "Div", "Mod")),
    case("Div", whole(4, 5), number(3, np.int64), constant=(1,)),
    case("Add", number(1.0).reshape(()), np.ones(1, np.float32), constant=(1,)),
    case("Add", X, normal(1), constant=(1,)),
    case("Add", normal(4), normal(2, 3, 4), constant=(0,)),
    case("Mod", X, normal(2, 3, 4, seed=1), fmod=1),
    case("Mod", whole(9), whole(9, low=1, seed=1), fmod=1),
    case("Pow", positive(2, 3), normal(2, 3)),
    case("Pow", X, number(2.0), constant=(1,)),
    case("Pow", whole(4), number(2.0), constant=(1,)),
    case("Pow", X, number(3, np.int64), constant=(1,)),
    *(case(op, X, normal(4, seed=1), normal(3, 4, seed=2)) for op in ("Sum", "Mean", "Min", "Max")),
    case("Max", X, number(0.0), constant=(1,)),
    *(case(op, X, ints(1), constant=(1,), opset=14) for op in ("CumSum",)),
    case("CumSum", X, number(-1, np.int64), constant=(1,), exclusive=1),
    case("CumSum", X, number(1, np.int64), constant=(1,), reverse=1),
    case("CumSum", X, number(1, np.int64), constant=(1,), reverse=1, exclusive=1),
    *(
        case(op, whole(4, 5), whole(5, seed=1))
        for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
    ),
    *(case(op, X, number(0.0), constant=(1,)) for op in ("Less", "Greater", "LessOrEqual", "GreaterOrEqual")),
    *(
        case(op, number(0.0), X, constant=(0,))
        for op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
    ),
    *(case(op, truth(4, 5), truth(5, seed=1)) for op in ("And", "Or", "Xor")),
    case("Not", truth(4, 5)),
    *(
        case(op, whole(4, dtype=np.int32), whole(4, dtype=np.int32, seed=1))
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    case("BitwiseNot", whole(4, dtype=np.int32)),
    case("IsNaN", np.array([1, np.nan, np.inf], np.float32)),
    case("IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32)),
    case("IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32), detect_negative=0),
    case("IsInf", np.array([1, np.nan, np.inf, -np.inf], np.float32), detect_positive=0),
    case("Where", truth(3, 4), X, normal(4, seed=3)),
    case("Where", truth(3, 4), X, number(-1e9), constant=(2,)),
    *(
        case("Clip", X, opset=6 + 1, **given)
        for given in ({}, {"min": -0.5}, {"max": 0.5}, {"min": 0.0, "max": 6.0})
    ),
    case("Clip", X, number(-0.5), number(0.5), constant=(1, 2), opset=11),
    case("Clip", X, None, number(0.5), constant=(2,)),
    case("Clip", X, number(-0.5), number(0.5)),
    case("Clip", X, number(-0.5), number(0.5), constant=(1,)),
    case("Clip", whole(9), number(-2, np.int64), number(3, np.int64), constant=(1, 2), opset=13),
]
ACTIVATIONS = [
    case("LeakyRelu", X, alpha=0.2),
    case("LeakyRelu", X),
    case("PRelu", PICTURE, normal(4, 1, 1), constant=(1,)),
    case("PRelu", PICTURE, normal(1), constant=(1,)),
    case("PRelu", PICTURE, normal(4, 7, 9), constant=(1,)),
    case("PRelu", PICTURE, normal(4, 1, 1)),
    *(
        case(op, X)
        for op in ("Elu", "Celu", "Selu", "ThresholdedRelu", "HardSigmoid", "Shrink", "Gelu", "Mish")
    ),
    *(case(op, X, alpha=0.7) for op in ("Elu", "Celu", "ThresholdedRelu")),
    case("Selu", X, alpha=1.5, gamma=1.1),
    case("HardSigmoid", X, alpha=1 / 6, beta=0.5),
    case("HardSwish", X * 3, opset=14),
    case("Gelu", X, approximate="tanh"),
    case("Shrink", X, lambd=0.3, bias=0.2),
    *(case(op, X, axis=axis) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (-1, 0, 1)),
    *(case(op, X) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(case(op, PICTURE, opset=11) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(case(op, PICTURE, opset=11, axis=axis) for op in ("Softmax", "LogSoftmax") for axis in (-1, 2, 0)),
    case("Swish", X, opset=24),
    case("Swish", X, opset=24, alpha=1.5),
    case("Dropout", X, opset=11),
    case("Dropout", X, opset=13),
]
REDUCTIONS = [
    *(
        case(f"Reduce{kind}", positive(2, 3, 4), **given)
        for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Sum")
        for given in (
            {"opset": 11, "axes": [1]},
            {"opset": 11, "axes": [-1, 0], "keepdims": 0},
            {"opset": 11},
            {"opset": 18, "keepdims": 0},
        )
    ),
    *(
        case(f"Reduce{kind}", positive(2, 3, 4), ints(0, 2), constant=(1,), opset=18)
        for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Sum")
    ),
    case("ReduceSum", X, ints(), constant=(1,), noop_with_empty_axes=1, opset=13),
    case("ReduceSum", whole(3, 4), ints(1), constant=(1,), opset=13),
    case("ReduceMean", X, ints(1)),
    *(case(op, X, axis=1, opset=13) for op in ("ArgMax", "ArgMin")),
    *(case(op, X, axis=-1, keepdims=0, opset=13) for op in ("ArgMax", "ArgMin")),
    *(
        case(op, whole(5, 9, low=0, high=3), axis=1, select_last_index=1, opset=13)
        for op in ("ArgMax", "ArgMin")
    ),
    case("TopK", X, ints(2), constant=(1,), outputs=2),
    case("TopK", X, ints(2), constant=(1,), outputs=2, axis=1, largest=0),
]
