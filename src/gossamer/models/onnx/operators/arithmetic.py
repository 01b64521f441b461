"""Element by element: sums, products, functions of one number, comparisons and logic."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..values import Operand


def Add(a: Operand, b: Operand) -> Tensor:
    first, second = (a, b) if isinstance(a, Tensor) else (b, a)
    return torch.add(first, second)


def Sub(a: Operand, b: Operand) -> Tensor:
    difference: Tensor = torch.sub(a, b) if isinstance(a, Tensor) else a - b
    return difference


def Mul(a: Operand, b: Operand) -> Tensor:
    first, second = (a, b) if isinstance(a, Tensor) else (b, a)
    return torch.mul(first, second)


def Div(a: Operand, b: Operand) -> Tensor:
    """Integers are divided towards zero."""
    whole = not (a if isinstance(a, Tensor) else b).is_floating_point()
    if not isinstance(a, Tensor):
        a = torch.full_like(b, a)
    return torch.div(a, b, rounding_mode="trunc") if whole else torch.div(a, b)


def Mod(a: Operand, b: Operand, *, fmod: int = 0) -> Tensor:
    """The sign is that of the divisor, with `fmod` that of the dividend."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def Pow(a: Operand, b: Operand) -> Tensor:
    """The result has the type of the base."""
    if not isinstance(a, Tensor):
        return torch.pow(a, b)
    return torch.pow(a, b).to(a.dtype)


def Neg(x: Tensor) -> Tensor:
    return torch.neg(x)


def Abs(x: Tensor) -> Tensor:
    return torch.abs(x)


def Sign(x: Tensor) -> Tensor:
    return torch.sign(x)


def Sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


def Exp(x: Tensor) -> Tensor:
    return torch.exp(x)


def Log(x: Tensor) -> Tensor:
    return torch.log(x)


def Reciprocal(x: Tensor) -> Tensor:
    return torch.reciprocal(x)


def Floor(x: Tensor) -> Tensor:
    return torch.floor(x)


def Ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


def Round(x: Tensor) -> Tensor:
    """Half to even."""
    return torch.round(x)


def Erf(x: Tensor) -> Tensor:
    return torch.erf(x)


def Sin(x: Tensor) -> Tensor:
    return torch.sin(x)


def Cos(x: Tensor) -> Tensor:
    return torch.cos(x)


def Tan(x: Tensor) -> Tensor:
    return torch.tan(x)


def Asin(x: Tensor) -> Tensor:
    return torch.asin(x)


def Acos(x: Tensor) -> Tensor:
    return torch.acos(x)


def Atan(x: Tensor) -> Tensor:
    return torch.atan(x)


def Sinh(x: Tensor) -> Tensor:
    return torch.sinh(x)


def Cosh(x: Tensor) -> Tensor:
    return torch.cosh(x)


def Asinh(x: Tensor) -> Tensor:
    return torch.asinh(x)


def Acosh(x: Tensor) -> Tensor:
    return torch.acosh(x)


def Atanh(x: Tensor) -> Tensor:
    return torch.atanh(x)


def Sum(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.add, xs)


def Mean(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.add, xs) / len(xs)


def Min(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.minimum, xs)


def Max(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, xs)


def CumSum(x: Tensor, axis: Operand, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """`exclusive`: each entry without itself; `reverse`: from the end."""
    along = int(axis)
    turned = x.flip(along) if reverse else x
    total = torch.cumsum(turned, along, dtype=x.dtype)
    if exclusive:
        total = total - turned
    return total.flip(along) if reverse else total


def Equal(a: Operand, b: Operand) -> Tensor:
    return _compared(torch.eq, a, b)


def Less(a: Operand, b: Operand) -> Tensor:
    return torch.lt(a, b) if isinstance(a, Tensor) else torch.gt(b, a)


def LessOrEqual(a: Operand, b: Operand) -> Tensor:
    return torch.le(a, b) if isinstance(a, Tensor) else torch.ge(b, a)


def Greater(a: Operand, b: Operand) -> Tensor:
    return torch.gt(a, b) if isinstance(a, Tensor) else torch.lt(b, a)


def GreaterOrEqual(a: Operand, b: Operand) -> Tensor:
    return torch.ge(a, b) if isinstance(a, Tensor) else torch.le(b, a)


def And(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_and(a, b)


def Or(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_or(a, b)


def Xor(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_xor(a, b)


def Not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


def BitwiseAnd(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_and(a, b)


def BitwiseOr(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_or(a, b)


def BitwiseXor(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_xor(a, b)


def BitwiseNot(x: Tensor) -> Tensor:
    return torch.bitwise_not(x)


def IsNaN(x: Tensor) -> Tensor:
    return torch.isnan(x)


def IsInf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if detect_negative and detect_positive:
        return torch.isinf(x)
    return torch.isneginf(x) if detect_negative else torch.isposinf(x)


def Where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


def _compared(function: Callable[[Any, Any], Tensor], a: Operand, b: Operand) -> Tensor:
    return function(a, b) if isinstance(a, Tensor) else function(b, a)
