"""Memory: bytes of activations that are alive while a schedule runs, and the operation where they are most.

    alive(v)  from the operation that first writes v to the last that reads or writes it
    peak      max over operations t of the sum of bytes of all v alive during t

Inputs and outputs of an operation are both alive during it. Inputs of the model are alive from operation 0 to
their last use (one that nothing uses is not counted), its outputs to the end; views and in-place results are
the activation they share memory with. Weights are not activations. No allocator can run the schedule in less,
unless a kernel writes over its own input; a workspace inside a kernel, and what an allocator loses between the
pieces, come on top. For a chain the peak is max(input + output).
Raises: MeasureError where an operation reads what nothing wrote, or an activation has no size.
Source: live ranges of register allocation (Chaitin 1982), with bytes for registers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import accumulate

from ..errors import MeasureError
from .schedule import Schedule


@dataclass(frozen=True)
class Lifetime:
    """One piece of memory, alive during the operations `first` to `last`, both included.

    It holds several activations in turn where an elementwise operation overwrites what it reads.
    """

    activations: tuple[int, ...]
    bytes: int
    first: int
    last: int
    layer: str | None  # that first wrote it; None: an input of the model

    def overlaps(self, other: Lifetime) -> bool:
        """True when some operation runs while both are alive."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Memory:
    """Bytes alive during each operation; `live` is what makes the peak, largest first.

    `lower_bound_bytes` holds for every order of the operations: the largest inputs + outputs of one of them.
    A schedule without operations has peak 0 at operation -1.
    """

    peak_bytes: int
    at: int  # the first operation of that peak
    timeline: tuple[int, ...]
    lower_bound_bytes: int
    live: tuple[Lifetime, ...]


def liveness(schedule: Schedule, *, unread: bool = False, reuse: bool = False) -> Memory:
    """Activation memory of the operations in the order given.

    unread: also count what is written and never read, such as the indices of a max-pool, while it is written.
    reuse: an elementwise operation writes over the input it reads first, where that is its last use, is no
    output of the model, and has the bytes of the result.
    """
    pieces = lifetimes(schedule, unread=unread, reuse=reuse)
    line = timeline(pieces, len(schedule.operations))
    peak = max(line, default=0)
    at = line.index(peak) if line else -1
    alive = [piece for piece in pieces if piece.first <= at <= piece.last]
    kept = counted(schedule, unread=unread)
    spared = overwritable(schedule, kept) if reuse else {}
    needs = (
        sum(schedule.sizes[tensor] for tensor in {*operation.reads, *operation.writes} & kept)
        - (schedule.sizes[spared[index][1]] if index in spared else 0)
        for index, operation in enumerate(schedule.operations)
    )
    return Memory(
        peak_bytes=peak,
        at=at,
        timeline=line,
        lower_bound_bytes=max(needs, default=0),
        live=tuple(sorted(alive, key=lambda piece: (-piece.bytes, piece.first))),
    )


def timeline(pieces: Iterable[Lifetime], operations: int) -> tuple[int, ...]:
    """Bytes alive during each of so many operations."""
    changes = [0] * (operations + 1)
    for piece in pieces:
        changes[piece.first] += piece.bytes
        changes[piece.last + 1] -= piece.bytes
    return tuple(accumulate(changes[:-1]))


def lifetimes(schedule: Schedule, *, unread: bool = False, reuse: bool = False) -> tuple[Lifetime, ...]:
    """The pieces of memory of `liveness`, in order of their first operation."""
    first = dict.fromkeys(schedule.inputs, 0)
    last: dict[int, int] = {}
    layers: dict[int, str | None] = dict.fromkeys(schedule.inputs)
    for index, operation in enumerate(schedule.operations):
        for tensor in operation.reads:
            if tensor not in first:
                raise MeasureError(
                    f"operation {index} ({operation.op}, layer {operation.layer!r}) reads activation "
                    f"{tensor}, which is no input of the model and which no operation before it writes. "
                    f"List it among the inputs, or put the operation that writes it first."
                )
            last[tensor] = index
        for tensor in operation.writes:
            first.setdefault(tensor, index)
            layers.setdefault(tensor, operation.layer)
            last[tensor] = index
    for tensor in schedule.outputs:
        if tensor not in first:
            raise MeasureError(
                f"output {tensor} of the model: expected an input or an activation that one of the "
                f"{len(schedule.operations)} operations writes. Remove it from the outputs."
            )
        last[tensor] = len(schedule.operations) - 1
    if not schedule.operations:
        return ()
    kept = counted(schedule, unread=unread)
    heirs: dict[int, int] = {}
    for index, (source, target) in (overwritable(schedule, kept) if reuse else {}).items():
        if last[source] == index:
            heirs[source] = target
    inherited = set(heirs.values())
    pieces = []
    for tensor in first:
        if tensor in kept and tensor not in inherited:
            chain = [tensor]
            while chain[-1] in heirs:
                chain.append(heirs[chain[-1]])
            size = schedule.sizes[tensor]
            pieces.append(Lifetime(tuple(chain), size, first[tensor], last[chain[-1]], layers[tensor]))
    return tuple(pieces)


def counted(schedule: Schedule, *, unread: bool) -> frozenset[int]:
    """The activations that take memory: all that is used, without results that nobody reads unless `unread`."""
    read = {tensor for operation in schedule.operations for tensor in operation.reads}
    written = {tensor for operation in schedule.operations for tensor in operation.writes}
    kept = read | set(schedule.outputs) | (written if unread else written & set(schedule.inputs))
    unknown = sorted(kept - set(schedule.sizes))
    if unknown:
        raise MeasureError(
            f"sizes: no bytes for activation {unknown[0]} ({len(unknown)} are missing). "
            f"Give the bytes of every activation that operations read or write."
        )
    return frozenset(kept)


def overwritable(schedule: Schedule, kept: Collection[int]) -> dict[int, tuple[int, int]]:
    """Operation -> (what it reads first, what it writes first) where the second can take the first's memory.

    It may do so where that read is the last use, which depends on the order of the operations.
    """
    outputs, made = set(schedule.outputs), set(schedule.inputs)
    pairs = {}
    for index, operation in enumerate(schedule.operations):
        if operation.elementwise and operation.reads and operation.writes:
            source, target = operation.reads[0], operation.writes[0]
            fresh = target in kept and target not in made
            if fresh and source not in outputs and schedule.sizes[source] == schedule.sizes[target]:
                pairs[index] = (source, target)
        made.update(operation.writes)
    return pairs
