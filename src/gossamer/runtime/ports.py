"""Ports: the inputs and outputs of a session, and the check of what a caller hands in.

A dynamic dimension is a name ("batch"); every other dimension must match exactly, and one name means one size
over all inputs of a call. float64 becomes float32 where the graph wants float32, and any integer becomes the
integer type that the graph wants; nothing else is converted.

Raises: ModelError with the input's name, what was received, and what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError, nearest

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True)
class Port:
    """One input or output: a name, a shape (numbers, and names of dynamic dimensions) and a numpy dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(str(dim) for dim in self.shape)}]"


def ports(arguments: Sequence[Any]) -> tuple[Port, ...]:
    """The ports of ONNX Runtime's own descriptions."""
    return tuple(
        Port(
            item.name,
            tuple("?" if dim is None else dim for dim in item.shape),
            DTYPES.get(item.type, item.type),
        )
        for item in arguments
    )


class Quick:
    """The check of a call with one array that can be handed over as it is: a microsecond instead of ten."""

    def __init__(self, port: Port) -> None:
        self.name = port.name
        self._dtype = np.dtype(port.dtype)
        self._first = port.shape[0] if port.shape else None
        self._rest = port.shape[1:]

    @classmethod
    def of(cls, inputs: Sequence[Port]) -> Quick | None:
        """The check for a model of one input whose free dimension, if any, is the first; else None."""
        if len(inputs) != 1 or not inputs[0].shape or inputs[0].dtype not in DTYPES.values():
            return None
        return cls(inputs[0]) if all(isinstance(size, int) for size in inputs[0].shape[1:]) else None

    def arrays(self, given: Any) -> dict[str, np.ndarray] | None:
        """What ONNX Runtime takes, when `given` (an array, or a mapping with just it) fits as it is; else None."""
        if type(given) is dict:
            return given if len(given) == 1 and self.fits(given.get(self.name)) else None
        return {self.name: given} if self.fits(given) else None

    def fits(self, value: Any) -> bool:
        if type(value) is not np.ndarray or value.dtype != self._dtype or not value.flags.c_contiguous:
            return False
        shape = value.shape
        return (
            shape[1:] == self._rest
            and len(shape) > 0
            and (type(self._first) is str or shape[0] == self._first)
        )


def feed(inputs: Sequence[Port], given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{name: array} as the graph wants it, from one array, several, or a mapping."""
    if len(given) == 1 and not named:
        (only,) = given
        if isinstance(only, Mapping):
            given, named = (), only
    wanted = ", ".join(str(port) for port in inputs)
    if len(given) > len(inputs):
        raise ModelError(f"{len(given)} inputs were given, but the model takes {len(inputs)}: {wanted}.")
    values = {port.name: value for port, value in zip(inputs, given, strict=False)}
    known = [port.name for port in inputs]
    for name, value in named.items():
        if name not in known:
            raise ModelError(f"the model has no input {name!r}. {nearest(name, known)}")
        if name in values:
            raise ModelError(f"input {name!r} was given twice, by position and by name.")
        values[name] = value
    missing = [port for port in inputs if port.name not in values]
    if missing:
        raise ModelError(f"input {missing[0].name!r} is missing; the model takes {wanted}.")
    sizes: dict[str, tuple[int, str]] = {}
    return {port.name: _checked(port, values[port.name], sizes) for port in inputs}


def _checked(port: Port, value: Any, sizes: dict[str, tuple[int, str]]) -> np.ndarray:
    array = np.asarray(value)
    wanted = str(port).partition(": ")[2]
    received = f"input {port.name!r}: received {array.dtype} {list(array.shape)}, expected {wanted}"
    array = _converted(array, port.dtype, received)
    if array.ndim != len(port.shape):
        hint = ""
        if array.ndim == len(port.shape) - 1 and isinstance(port.shape[0], str):
            hint = " Add the batch dimension: x[None]."
        raise ModelError(f"{received}: {array.ndim} dimensions instead of {len(port.shape)}.{hint}")
    for axis, (size, want) in enumerate(zip(array.shape, port.shape, strict=True)):
        if isinstance(want, int) and size != want:
            raise ModelError(f"{received}: axis {axis} has {size} instead of {want} elements.")
        if isinstance(want, str) and want.isidentifier():
            first, where = sizes.setdefault(want, (size, port.name))
            if first != size:
                raise ModelError(f"{received}: {want!r} is {size} here, but {first} in input {where!r}.")
    return np.ascontiguousarray(array)


def _converted(array: np.ndarray, dtype: str, received: str) -> np.ndarray:
    if array.dtype == dtype:
        return array
    kind, wanted = array.dtype.kind, np.dtype(dtype).kind
    if kind == "f" and wanted == "f":
        return array.astype(dtype)
    if kind in "iu" and wanted in "iu":
        limits = np.iinfo(dtype)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise ModelError(f"{received}: a value lies outside {dtype}.")
        return array.astype(dtype)
    raise ModelError(f"{received}. Convert it first, for example x.astype(np.{dtype}).")
