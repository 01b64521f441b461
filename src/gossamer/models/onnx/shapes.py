"""shapes: the operators of shape arithmetic on Known arrays, named as in ONNX.

They compute with Python numbers, so symbolic sizes pass through. Division truncates and sizes are not negative, as in
ONNX. An operator that cannot answer with numbers alone returns None, and is then computed with tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .dtypes import dtype_of
from .values import Known

LIMIT = 64  # entries that ConstantOfShape makes as numbers


def Identity(x: Known) -> Known:
    return x


def Cast(x: Known, *, to: int) -> Known | None:
    kind = dtype_of(to)
    if kind == torch.bool:
        return Known.of(_map(lambda v: bool(v != 0), x), kind)
    if kind.is_floating_point:
        return Known.of(_map(_float, x), kind)
    return Known.of(_map(_int, x), kind) if not kind.is_complex else None


def Add(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: x + y, a, b)


def Sub(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: x - y, a, b)


def Mul(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: x * y, a, b)


def Div(a: Known, b: Known) -> Known:
    return _pairs((lambda x, y: x / y) if a.dtype.is_floating_point else _truncated, a, b)


def Mod(a: Known, b: Known, *, fmod: int = 0) -> Known | None:
    return None if fmod else _pairs(lambda x, y: x % y, a, b)


def Neg(x: Known) -> Known:
    return Known.of(_map(lambda v: -v, x), x.dtype)


def Abs(x: Known) -> Known:
    return Known.of(_map(abs, x), x.dtype)


def Floor(x: Known) -> Known:
    return Known.of(_map(lambda v: _float(math.floor(v)), x), x.dtype)


def Ceil(x: Known) -> Known:
    return Known.of(_map(lambda v: _float(math.ceil(v)), x), x.dtype)


def Sqrt(x: Known) -> Known | None:
    return Known.of(_map(math.sqrt, x), x.dtype) if x.concrete else None  # ONNX has no root of a size


def Min(*xs: Known) -> Known:
    return _folded(torch.sym_min, xs)


def Max(*xs: Known) -> Known:
    return _folded(torch.sym_max, xs)


def Equal(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: bool(x == y), a, b, torch.bool)


def Less(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: bool(x < y), a, b, torch.bool)


def LessOrEqual(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: bool(x <= y), a, b, torch.bool)


def Greater(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: bool(x > y), a, b, torch.bool)


def GreaterOrEqual(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: bool(x >= y), a, b, torch.bool)


def And(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: x and y, a, b, torch.bool)


def Or(a: Known, b: Known) -> Known:
    return _pairs(lambda x, y: x or y, a, b, torch.bool)


def Not(x: Known) -> Known:
    return Known.of(_map(lambda v: not v, x), torch.bool)


def Where(condition: Known, a: Known, b: Known) -> Known:
    chosen = np.broadcast_arrays(condition.values, a.values, b.values)
    picked = [x if c else y for c, x, y in zip(*(each.flat for each in chosen), strict=True)]
    return Known.of(_filled(picked).reshape(chosen[0].shape), a.dtype)


def ReduceProd(
    x: Known, axes: Known | tuple[int, ...] | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Known | None:
    if isinstance(axes, Known):
        axes = axes.numbers()
    if (not axes and noop_with_empty_axes) or x.values.ndim > 1:
        return None
    product: Any = 1
    for value in x.values.flat:
        product = product * value
    return Known.of(_filled([product]).reshape([1] * x.values.ndim if keepdims else []), x.dtype)


def Gather(x: Known, indices: Known, *, axis: int = 0) -> Known:
    return Known.of(np.take(x.values, _plain(indices), axis=axis), x.dtype)


def Concat(*xs: Known, axis: int) -> Known:
    return Known.of(np.concatenate([x.values for x in xs], axis=axis), xs[0].dtype)


def Squeeze(x: Known, axes: Known | tuple[int, ...] | None = None) -> Known:
    if isinstance(axes, Known):
        axes = axes.numbers()
    return Known.of(np.squeeze(x.values, axes), x.dtype)


def Unsqueeze(x: Known, axes: Known | tuple[int, ...]) -> Known:
    if isinstance(axes, Known):
        axes = axes.numbers()
    return Known.of(np.expand_dims(x.values, axes), x.dtype)


def Reshape(x: Known, shape: Known, *, allowzero: int = 0) -> Known | None:
    if not shape.concrete:
        return None
    sizes = [
        x.values.shape[at] if size == 0 and not allowzero else size for at, size in enumerate(shape.numbers())
    ]
    return Known.of(x.values.reshape(sizes), x.dtype)


def Transpose(x: Known, *, perm: tuple[int, ...] | None = None) -> Known:
    return Known.of(np.transpose(x.values, perm), x.dtype)


def Slice(
    x: Known,
    starts: Known | tuple[int, ...],
    ends: Known | tuple[int, ...],
    axes: Known | tuple[int, ...] | None = None,
    steps: Known | None = None,
) -> Known | None:
    given = [each for each in (starts, ends, axes, steps) if isinstance(each, Known)]
    if not all(each.concrete for each in given):
        return None
    first, last = _ints(starts), _ints(ends)
    along, by = _ints(axes) or tuple(range(len(first))), _ints(steps) or (1,) * len(first)
    index = [slice(None)] * x.values.ndim
    for axis, start, end, step in zip(along, first, last, by, strict=True):
        stop = None if step < 0 and end < -x.values.shape[axis] else end  # before the first entry
        index[axis] = slice(start, stop, step)
    return Known.of(x.values[tuple(index)], x.dtype)


def ConstantOfShape(shape: Known, *, value: torch.Tensor | None = None) -> Known | None:
    kind = torch.float32 if value is None else value.dtype
    if kind.is_floating_point or len(shape.values) != 1 or not shape.concrete or shape.values[0] > LIMIT:
        return None
    assert value is not None
    return Known.of([value.item()] * shape.values[0], kind)


def Size(x: Known) -> Known:
    return Known.of(x.values.size)


def Shape(x: Known, *, start: int = 0, end: int | None = None) -> Known:
    return Known.of(list(x.values.shape[start:end]))


def _ints(value: Known | tuple[int, ...] | None) -> tuple[int, ...]:
    return value.numbers() if isinstance(value, Known) else (value or ())


def _plain(x: Known) -> np.ndarray:
    return np.array(x.values.tolist(), np.int64).reshape(x.values.shape)


def _filled(values: list[Any]) -> np.ndarray:
    result = np.empty(len(values), object)
    for at, value in enumerate(values):
        result[at] = value
    return result


def _map(function: Callable[[Any], Any], x: Known) -> np.ndarray:
    return _filled([function(value) for value in x.values.flat]).reshape(x.values.shape)


def _pairs(
    function: Callable[[Any, Any], Any], a: Known, b: Known, dtype: torch.dtype | None = None
) -> Known:
    first, second = np.broadcast_arrays(a.values, b.values)
    values = [function(x, y) for x, y in zip(first.flat, second.flat, strict=True)]
    return Known.of(_filled(values).reshape(first.shape), dtype or a.dtype)


def _folded(function: Callable[[Any, Any], Any], xs: tuple[Known, ...]) -> Known:
    result = xs[0]
    for x in xs[1:]:
        result = _pairs(function, result, x)
    return result


def _truncated(x: Any, y: Any) -> Any:
    if isinstance(x, int) and isinstance(y, int):
        return int(abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1)
    return x // y


def _float(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return float(value)
    return torch.sym_float(value)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _int(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        return int(value)
    return torch.sym_int(value)  # type: ignore[no-untyped-call]  # torch leaves it untyped
