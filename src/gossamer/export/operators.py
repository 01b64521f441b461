"""operators: our own torch operators, written in ONNX's words.

gossamer::fake_quantize(x, scale, zero point z, qmin, qmax) rounds to a grid of integers. All grids become uint8, because
ONNX Runtime's integer kernels want one type for what goes in and what comes out; the integers move by qmin:

    QuantizeLinear(x, scale, z - qmin)  ->  Clip(.., max = qmax - qmin)  ->  DequantizeLinear

uint8 itself ends at 0, and at 255, where no Clip is needed. The Clip works on integers: the convolution before it and
QuantizeLinear still become one integer kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op

from ..errors import ExportError
from ..quantizers import grid as _grid  # the operator must be known before it is looked up

TOP = 255  # of uint8


def fake_quantize(x: Any, scale: float, zero_point: int, qmin: int, qmax: int) -> Any:
    """The nodes of one activation quantizer; half and double precision pass through float32."""
    if qmax - qmin > TOP:
        raise ExportError(
            f"quantizer: integers {qmin}..{qmax} are {qmax - qmin + 1} values, but 8 bits hold 256. Use at most 8 bits."
        )
    kind = x.dtype
    narrow = kind is None or kind == ir.DataType.FLOAT
    step, zero = _constant(np.float32(scale)), _constant(np.uint8(zero_point - qmin))
    single: Any = x if narrow else op.Cast(x, to=ir.DataType.FLOAT)
    codes: Any = op.QuantizeLinear(single, step, zero)
    if qmax - qmin < TOP:
        codes = op.Clip(codes, None, _constant(np.uint8(qmax - qmin)))
    rounded = op.DequantizeLinear(codes, step, zero)
    return rounded if narrow else op.Cast(rounded, to=kind)


def _constant(value: np.generic) -> Any:
    tensor: Any = ir.tensor(value)
    return op.Constant(value=tensor)


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch.onnx.export takes as `custom_translation_table`."""
    assert _grid is not None
    return {torch.ops.gossamer.fake_quantize.default: fake_quantize}
