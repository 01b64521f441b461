"""call: one node as the counting rules see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cost import Cost

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One node: the shapes of its inputs (None for one left out) and outputs, and its attributes."""

    op: str
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def has(self, at: int) -> bool:
        """Whether the optional input is there."""
        return at < len(self.inputs) and self.inputs[at] is not None

    def optional(self, at: int) -> Shape | None:
        """The shape of an input that may be left out."""
        return self.inputs[at] if at < len(self.inputs) else None

    def shape(self, at: int) -> Shape:
        """The shape of an input that must be there."""
        shape = self.inputs[at]
        if shape is None:
            raise IndexError(f"input {at} is missing")
        return shape

    @property
    def output(self) -> Shape:
        """The shape of the first output."""
        shape = self.outputs[0]
        if shape is None:
            raise IndexError("output 0 is missing")
        return shape

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)


Rule = Callable[[Call], Cost | None]
