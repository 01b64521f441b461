"""merge: what ONNX writes as several nodes and is one thing.

    product, + constant vector [C]                        the product with a bias
    product, x constant vector [C], + constant vector     the product, and a norm that it can absorb

C is the axis of the product's outputs: 1 after a convolution, the last after a matrix product. Only a value that
the next node alone reads is merged over. ONNX Runtime merges the same nodes when it opens a file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod

from ...cost import Cost
from ..schedule import Operation


@dataclass(frozen=True)
class Draft:
    """An operation, the weights it reads by the graph's names, and what merging must know of it."""

    operation: Operation
    held: tuple[str, ...] = ()
    axis: int | None = None  # of a product by a weight: where its outputs lie
    vectors: frozenset[int] = frozenset()  # of a sum or product with a constant vector: along which axes

    def reads_vector(self, op: str, axis: int) -> bool:
        """Whether it is `op` with a constant vector along this axis."""
        return self.operation.op == op and axis in self.vectors


def vectors(shape: Sequence[int], output: Sequence[int]) -> frozenset[int]:
    """The axes along which a constant of this shape is a vector when it is broadcast over `output`."""
    padded = [1] * (len(output) - len(shape)) + list(shape)
    size = prod(shape)
    fits = [at for at, (own, whole) in enumerate(zip(padded, output, strict=True)) if own == whole == size]
    return frozenset(fits)


def merge(drafts: Sequence[Draft], outputs: Collection[int]) -> list[Draft]:
    """The drafts with biases in their products, and packed norms in one piece."""
    readers: dict[int, list[int]] = {}
    writers: dict[int, list[int]] = {}
    for index, draft in enumerate(drafts):
        for tensor in draft.operation.reads:
            readers.setdefault(tensor, []).append(index)
        for tensor in draft.operation.writes:
            writers.setdefault(tensor, []).append(index)

    def next_of(draft: Draft) -> int | None:
        """The one operation that reads the result, where nothing else does."""
        result = draft.operation.writes[0]
        alone = len(readers.get(result, [])) == len(writers[result]) == 1 and result not in outputs
        return readers[result][0] if alone else None

    kept: list[Draft | None] = list(drafts)
    for index, draft in enumerate(drafts):
        axis, second = draft.axis, next_of(draft) if draft.axis is not None else None
        if axis is None or second is None:
            continue
        if drafts[second].reads_vector("Add", axis):
            kept[index], kept[second] = _biased(draft, drafts[second]), None
        elif drafts[second].reads_vector("Mul", axis):
            third = next_of(drafts[second])
            if third is not None and drafts[third].reads_vector("Add", axis):
                kept[second], kept[third] = _norm(drafts[second], drafts[third]), None
    return [draft for draft in kept if draft is not None]


def _biased(product: Draft, added: Draft) -> Draft:
    before, after = product.operation, added.operation
    cost = replace(
        before.cost + Cost(bias_adds=prod(after.output_shape)),
        weight_bytes=before.cost.weight_bytes + after.cost.weight_bytes,
    )
    merged = replace(
        before,
        writes=after.writes,
        cost=cost,
        weights=tuple(dict.fromkeys((*before.weights, *after.weights))),
        output_shape=after.output_shape,
    )
    return replace(product, operation=merged, held=tuple(dict.fromkeys((*product.held, *added.held))))


def _norm(scaled: Draft, shifted: Draft) -> Draft:
    first, last = scaled.operation, shifted.operation
    cost = (first.cost + last.cost).moving(
        weights=first.cost.weight_bytes + last.cost.weight_bytes,
        inputs=first.cost.input_bytes,
        outputs=last.cost.output_bytes,
    )
    merged = replace(
        first,
        op="Mul+Add",
        writes=last.writes,
        cost=cost,
        weights=tuple(dict.fromkeys((*first.weights, *last.weights))),
        folds=True,
    )
    return replace(scaled, operation=merged, held=tuple(dict.fromkeys((*scaled.held, *shifted.held))))
