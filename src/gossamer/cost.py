"""Cost: what one execution of an operator costs. Additive: the cost of a network is the sum over its operators.

    macs        one multiply and one add, fused, at every tap the dense kernel executes (padding taps too)
    flops       2 macs + bias_adds                 (the field's "FLOPs" are often MACs; these are not)
    bias_adds   one per output of a layer with a bias
    other_ops   the rest by kind, never converted: add, multiply, compare, transcendental
    adds        of adder layers, 2 per tap         shifts    of power-of-two weights
    bit_ops     xnor and popcount of binary weights, 1 per weight and position

Traffic is each tensor read or written once, with a cold cache; intensity is flops / traffic. Parameters are
not here: a parameter exists once, however often it is used.
Source: the rules of the ResNet and MobileNet papers (MACs) and of torchvision's GFLOPS column (also MACs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

KINDS = ("add", "multiply", "compare", "transcendental")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counts of one execution; bytes are those of the tensors as they lie in memory (4 per float32)."""

    macs: int = 0
    macs_nonzero: int = 0  # those whose weight is not zero: what a perfect sparse kernel would execute
    bias_adds: int = 0
    other_ops: Mapping[str, int] = field(default_factory=dict)
    adds: int = 0
    shifts: int = 0
    bit_ops: int = 0
    weight_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    @classmethod
    def of_macs(cls, macs: int, *, bias_adds: int = 0) -> Self:
        """Of a layer whose weights are all used (`macs_nonzero` equals `macs`)."""
        return cls(macs=macs, macs_nonzero=macs, bias_adds=bias_adds)

    @classmethod
    def of_elements(cls, count: int, **kinds: float) -> Self:
        """Of `count` elements at so many operations of each kind: `of_elements(n, add=1, multiply=2)`."""
        return cls(other_ops={kind: round(count * each) for kind, each in kinds.items()})

    @property
    def flops(self) -> int:
        """Floating-point operations of the multiply-accumulates and of the biases."""
        return 2 * self.macs + self.bias_adds

    @property
    def total_other_ops(self) -> int:
        """All kinds together."""
        return sum(self.other_ops.values())

    @property
    def traffic_bytes(self) -> int:
        """Weights, inputs and outputs, each once."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def intensity(self) -> float:
        """FLOP per byte of traffic, other operations included; 0 where nothing moves."""
        work = self.flops + self.total_other_ops + self.adds + self.shifts
        return work / self.traffic_bytes if self.traffic_bytes else 0.0

    def __add__(self, other: Cost) -> Cost:
        summed = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name != "other_ops"
        }
        kinds = dict(self.other_ops)
        for kind, count in other.other_ops.items():
            kinds[kind] = kinds.get(kind, 0) + count
        return Cost(other_ops=kinds, **summed)

    def moving(self, *, weights: int = 0, inputs: int = 0, outputs: int = 0) -> Self:
        """The same operations with their traffic in bytes."""
        return replace(self, weight_bytes=weights, input_bytes=inputs, output_bytes=outputs)


class Costed:
    """A layer that knows its own cost better than the operators it is written with.

    `cost(*input_shapes)` returns the Cost of one call without traffic; the operators inside are then not
    counted one by one.
    """

    def cost(self, *input_shapes: tuple[int, ...]) -> Cost:
        raise NotImplementedError
