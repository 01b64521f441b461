"""Nodes that move, pick and make values."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from onnx_cases import PICTURE, X, case, ints, normal, number, truth, whole

SHAPES = [
    case("Reshape", X, ints(0, -1), constant=(1,)),
    case("Reshape", X, ints(4, 6), constant=(1,)),
    case("Reshape", X, ints(-1, 2, 3)),
    case("Reshape", np.zeros((0, 3), np.float32), ints(3, 0), constant=(1,), allowzero=1),
    *(case("Flatten", X, axis=axis) for axis in (0, 1, 2, 3, -1)),
    case("Flatten", PICTURE),
    case("Transpose", X),
    case("Transpose", X, perm=[1, 2, 0]),
    case("Squeeze", normal(1, 3, 1, 2)),
    case("Squeeze", normal(1, 3, 1, 2), axes=[0], opset=11),
    case("Squeeze", normal(1, 3, 1, 2), ints(-2), constant=(1,), opset=13),
    case("Unsqueeze", X, axes=[0, 3], opset=11),
    case("Unsqueeze", X, ints(-1, 0), constant=(1,), opset=13),
    case("Concat", X, X + 1, axis=1),
    case("Concat", X, normal(2, 5, 4), axis=-2, constant=(1,)),
    case("Split", normal(6, 5), outputs=3, opset=11),
    case("Split", normal(5, 6), outputs=2, axis=1, split=[2, 4], opset=11),
    case("Split", normal(5, 6), ints(2, 4), constant=(1,), outputs=2, axis=-1, opset=13),
    case("Split", normal(5, 6), outputs=2, axis=0, num_outputs=2, opset=18),
    case("Slice", PICTURE, ints(0, 1), ints(3, -1), ints(1, 2), constant=(1, 2, 3)),
    case("Slice", PICTURE, ints(1, 8), ints(2**63 - 1, 1), ints(2, 3), ints(2, -3), constant=(1, 2, 3, 4)),
    case("Slice", PICTURE, ints(-1), ints(-(2**63)), ints(3), ints(-1), constant=(1, 2, 3, 4)),
    case("Slice", PICTURE, ints(5), ints(-100), ints(-1), ints(-2), constant=(1, 2, 3, 4)),
    case("Slice", PICTURE, ints(0, 1), ints(1, 3), constant=(1, 2)),
    case("Slice", PICTURE, ints(0, 1), ints(1, 3)),
    case("Slice", PICTURE, starts=[1, -3], ends=[3, 100], axes=[1, 3], opset=9),
    case("Expand", normal(3, 1), ints(2, 1, 4), constant=(1,)),
    case("Expand", normal(3, 1), ints(1, 4), constant=(1,)),
    case("Expand", normal(2, 3, 4), ints(1, 1), constant=(1,)),
    case("Expand", normal(3, 1), ints(2, 3, 4)),
    case("Tile", normal(2, 3), ints(2, 3), constant=(1,)),
    *(
        case("Pad", PICTURE, ints(0, 1, 2, 3, 0, 0, 1, 2), constant=(1,), mode=m)
        for m in ("constant", "edge", "reflect")
    ),
    case("Pad", normal(2, 5), ints(0, 7, 0, 6), constant=(1,), mode="wrap", opset=19),
    case("Pad", normal(2, 5), ints(0, 2, 0, -3), number(1.5), constant=(1, 2)),
    case("Pad", normal(2, 5), ints(0, 2, 0, 1), number(1.5)),
    case("Pad", normal(2, 5, 3), ints(2, 1), number(-1.0), ints(-1), constant=(1, 2, 3)),
    case("Pad", whole(2, 5), ints(0, 2, 0, 1), number(7, np.int64), constant=(1, 2)),
    case("Pad", normal(2, 5), pads=[0, 2, 0, 1], value=2.5, opset=10),
    *(
        case("Trilu", normal(4, 5), number(k, np.int64), constant=(1,), upper=u)
        for k in (-1, 0, 2)
        for u in (0, 1)
    ),
    case("Trilu", normal(2, 4, 5)),
    case("DepthToSpace", normal(2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", normal(2, 8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", normal(2, 3, 4, 6), blocksize=2),
    case("ReverseSequence", normal(5, 3, 2), ints(5, 2, 1)),
    case("ReverseSequence", normal(3, 5, 2), ints(5, 2, 1), batch_axis=0, time_axis=1),
    *(
        case("Cast", X * 3, to=kind)
        for kind in (TensorProto.INT64, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL)
    ),
    case("Cast", whole(4), to=TensorProto.FLOAT),
    case("CastLike", whole(4), number(1.0)),
    case("Shape", X),
    case("Shape", PICTURE, start=1, end=-1),
    case("Size", X),
]
INDEX = [
    case("Gather", X, whole(5, low=-2, high=2), constant=(1,)),
    case("Gather", X, whole(2, 2, low=-3, high=3), axis=1),
    case("Gather", X, number(-1, np.int64), axis=2, constant=(1,)),
    case("Gather", X, number(1, np.int64), axis=2),
    case("Gather", normal(10, 4), whole(2, 3, low=0, high=10), constant=(0,)),
    case("Gather", normal(10, 4), whole(2, 3, low=-10, high=10)),
    case("Gather", whole(10), whole(2, 3, low=-10, high=10), constant=(0,)),
    case("GatherElements", X, whole(2, 3, 2, low=-4, high=4), axis=2),
    case("GatherElements", X, whole(1, 3, 4, low=-2, high=2), axis=0),
    case("GatherND", X, np.array([[0, 1], [-1, 2]], np.int64)),
    case("GatherND", X, np.array([[[1]], [[2]]], np.int64), batch_dims=1),
    case("ScatterElements", X, whole(2, 3, 2, low=-4, high=4)[:, :, :1], normal(2, 3, 1), axis=2),
    *(
        case(
            "ScatterElements",
            X,
            whole(2, 3, 3, low=0, high=4),
            normal(2, 3, 3),
            axis=2,
            reduction=r,
            opset=18,
        )
        for r in ("add", "mul", "min", "max")
    ),
    case("ScatterND", normal(6, 3), np.array([[4], [1], [-1]], np.int64), normal(3, 3)),
    *(
        case(
            "ScatterND",
            normal(6, 3),
            np.array([[4, 0], [1, 2], [4, 0]], np.int64),
            normal(3),
            reduction=r,
            opset=18,
        )
        for r in ("add", "mul", "min", "max")
    ),
    case(
        "OneHot",
        whole(3, low=-4, high=6),
        number(4, np.int64),
        np.array([0.5, 2], np.float32),
        constant=(1, 2),
    ),
    case(
        "OneHot", whole(3, 2, low=0, high=4), ints(4), np.array([0.5, 2], np.float32), constant=(1, 2), axis=0
    ),
    case("NonZero", whole(3, 4, low=0, high=2)),
    case("Compress", X, truth(3), axis=1),
    case("Compress", X, truth(20)),
]
CREATED = [
    case("ConstantOfShape", ints(2, 3)),
    case("ConstantOfShape", ints(3), value=numpy_helper.from_array(ints(7))),
    case("Range", number(1, np.int64), number(9, np.int64), number(3, np.int64)),
    case("Range", number(1.0), number(2.0), number(0.25)),
    case("EyeLike", normal(3, 4)),
    case("EyeLike", normal(3, 4), k=1, dtype=TensorProto.INT64),
]
