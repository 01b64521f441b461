"""Outline: what the header says of every tensor, before any field is read.

The reader builds outlines from the header and the writer builds them from `Stored` trees; both put them
through the same checks (`layouts.check`), so nothing can be written that would not be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import HeaderError


@dataclass(frozen=True)
class FieldOutline:
    """One field: `width` bits per integer, or `dtype` of its floats; `count` values in `size` bytes."""

    name: str
    count: int
    size: int
    width: int = 0  # 0: floats
    dtype: str = ""  # "": integers
    coder: str = ""  # "": floats, written raw

    @property
    def decoded_bytes(self) -> int:
        """Memory of the decoded values: uint8, uint16 or float32."""
        return self.count * (4 if self.dtype else 1 if self.width <= 8 else 2)


@dataclass(frozen=True)
class Outline:
    """One node: layout, dense shape, fields in file order, options and inner nodes."""

    layout: str
    shape: tuple[int, ...]
    fields: Mapping[str, FieldOutline] = field(default_factory=dict)
    inner: Mapping[str, Outline] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Outline]]:
        """Every node with its path, in the order in which the file holds their fields."""
        yield prefix, self
        for name, node in self.inner.items():
            yield from node.walk(f"{prefix}.{name}" if prefix else name)

    def expect(
        self,
        place: str,
        *,
        ints: tuple[str, ...] = (),
        floats: tuple[str, ...] = (),
        optional: tuple[str, ...] = (),
        inner: tuple[str, ...] = (),
        options: Mapping[str, range] | None = None,
    ) -> None:
        """HeaderError unless the node has these fields, inner nodes and options (`optional` may lack)."""
        for name in (*ints, *floats):
            found = self.fields.get(name)
            if found is None:
                if name in optional:
                    continue
                raise HeaderError(
                    f"{place}: layout {self.layout!r} needs a field {name!r}, which is missing."
                )
            if bool(found.width) != (name in ints):
                kind = "integers" if name in ints else "floats"
                raise HeaderError(f"{place}: field {name!r} of layout {self.layout!r} must hold {kind}.")
        _only(place, self.layout, "field", self.fields, (*ints, *floats))
        _only(place, self.layout, "inner node", self.inner, inner)
        for name in inner:
            if name not in self.inner:
                raise HeaderError(f"{place}: layout {self.layout!r} needs an inner node {name!r}.")
        allowed = options or {}
        _only(place, self.layout, "option", self.options, tuple(allowed))
        for name, value in self.options.items():
            if value not in allowed[name]:
                low, high = allowed[name].start, allowed[name].stop - 1
                raise HeaderError(f"{place}: option {name!r} is {value}, but must lie in {low}..{high}.")

    def count(self, place: str, name: str, *expected: int) -> None:
        """HeaderError unless field `name` holds one of the `expected` counts."""
        found = self.fields[name].count
        if found not in expected:
            wanted = " or ".join(str(value) for value in dict.fromkeys(expected))
            raise HeaderError(
                f"{place}: field {name!r} of layout {self.layout!r} holds {found} values, but shape "
                f"{self.shape} needs {wanted}."
            )


@dataclass(frozen=True)
class TensorOutline:
    """One coded initialiser; see `tensor.Tensor`."""

    name: str
    initializer: str
    node: Outline
    perm: tuple[int, ...] | None = None
    dtype: str = "float32"


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """The tensor seen as a matrix: its first dimension, and all others together."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


def _only(place: str, layout: str, what: str, given: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    for name in given:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise HeaderError(f"{place}: layout {layout!r} has no {what} {name!r} (it has: {known}).")
