"""dtypes: the element types of ONNX in torch, and the contents of an ONNX tensor as a torch tensor.

4-bit and 8-bit floats become float32, 4-bit integers become 8-bit ones: torch computes with neither.
Raises: ModelError for strings, and for a tensor whose bytes do not fit its shape.
"""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from ...errors import ModelError

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
}


def dtype_of(number: int) -> torch.dtype:
    """The torch type of an ONNX element type (an enum value)."""
    found = _TYPES.get(number)
    if found is None:
        name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else number
        raise ModelError(f"the element type {name} has no counterpart in torch. Convert the network first.")
    return found


def tensor_of(proto: TensorProto) -> Tensor:
    """The contents of an ONNX tensor."""
    if proto.data_type == TensorProto.STRING:
        raise ModelError(f"constant {proto.name!r} holds strings, which torch cannot compute with.")
    try:
        array = numpy_helper.to_array(proto)
    except Exception as error:  # onnx meets a damaged tensor with errors of any kind
        raise ModelError(
            f"constant {proto.name!r} of shape {list(proto.dims)} cannot be read ({error}). Export the network again."
        ) from error
    wanted = _TYPES.get(proto.data_type, torch.float32)
    if array.dtype.name not in _NATIVE:
        narrow = wanted in (torch.int8, torch.uint8)
        array = array.astype(np.int8 if wanted == torch.int8 else np.uint8 if narrow else np.float32)
    tensor = torch.from_numpy(np.array(array, order="C"))  # a copy: the file's own bytes are not writable
    return tensor.to(wanted)


_NATIVE = frozenset(
    np.dtype(name).name
    for name in ("f2", "f4", "f8", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16")
)
