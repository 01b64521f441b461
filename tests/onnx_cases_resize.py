"""Resize and Upsample in all their modes."""

from __future__ import annotations

import numpy as np

from onnx_cases import PICTURE, case, ints

UP, MIXED = np.array([1, 1, 2, 3], np.float32), np.array([1, 1, 0.65, 1.7], np.float32)  # 0.6 * 7 meets ties
MODES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
RESIZES = [
    *(
        case(
            "Resize",
            PICTURE,
            None,
            scales,
            constant=(2,),
            mode=mode,
            coordinate_transformation_mode=place,
            opset=19,
        )
        for mode in ("nearest", "linear", "cubic")
        for place in MODES
        for scales in (UP, MIXED)
    ),
    *(
        case(
            "Resize",
            PICTURE,
            None,
            MIXED,
            constant=(2,),
            nearest_mode=rounding,
            opset=13,
            coordinate_transformation_mode=place,
        )
        for rounding in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
        for place in ("half_pixel", "asymmetric")
    ),
    *(
        case("Resize", PICTURE, None, None, ints(2, 4, 5, 12), constant=(3,), mode=mode, opset=13)
        for mode in ("nearest", "linear", "cubic")
    ),
    case(
        "Resize",
        PICTURE,
        None,
        None,
        ints(2, 4, 1, 1),
        constant=(3,),
        mode="linear",
        opset=13,
        coordinate_transformation_mode="pytorch_half_pixel",
    ),
    case("Resize", PICTURE, None, None, ints(14, 27), constant=(3,), axes=[2, 3], mode="linear", opset=18),
    *(
        case(
            "Resize",
            PICTURE,
            None,
            None,
            ints(10, 10),
            constant=(3,),
            axes=[2, 3],
            mode="linear",
            opset=18,
            keep_aspect_ratio_policy=policy,
        )
        for policy in ("not_larger", "not_smaller")
    ),
    case("Resize", PICTURE, None, MIXED, constant=(2,), mode="cubic", cubic_coeff_a=-0.5, opset=13),
    case("Resize", PICTURE, None, MIXED, constant=(2,), mode="cubic", exclude_outside=1, opset=13),
    *(
        case(
            "Resize",
            PICTURE,
            None,
            np.array([1, 1, 0.4, 0.6], np.float32),
            constant=(2,),
            mode=mode,
            antialias=1,
            opset=18,
        )
        for mode in ("linear", "cubic")
    ),
    case("Upsample", PICTURE, UP, constant=(1,), opset=9),
    case("Upsample", PICTURE, UP, constant=(1,), opset=9, mode="linear"),
]
