"""Arena: an offset for each activation in one block of memory, planned before anything runs.

    two activations alive during the same operation never overlap;  arena >= peak of `memory.liveness`

Three plans are made and the smallest arena is taken. By size: the largest first, each at the lowest offset that
is free over its whole lifetime. By area: the same, with bytes times operations alive for the size. Both ends: in
order of execution, each at the bottom of the arena if that is free, else as high as it fits under the peak; a
chain so alternates between the two ends and needs no byte more than its peak, which the other two may.
Offsets are multiples of the alignment.
Source: Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020,
arXiv:2001.03288 (greedy by size for offsets; packing at least bytes is NP-hard, as dynamic storage allocation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import OptionError
from .memory import Lifetime, lifetimes, timeline
from .schedule import Schedule


@dataclass(frozen=True)
class Arena:
    """Offsets in bytes, by activation; `bound_bytes` is the peak of the liveness, without alignment."""

    offsets: Mapping[int, int]
    arena_bytes: int
    bound_bytes: int
    method: str  # "by size", "by area" or "both ends"

    @property
    def ratio(self) -> float:
        """Arena / bound; 1 is the best possible for this order of operations."""
        return self.arena_bytes / self.bound_bytes if self.bound_bytes else 1.0


def place(schedule: Schedule, *, alignment: int = 64, unread: bool = False, reuse: bool = False) -> Arena:
    """Where each activation lies; `unread` and `reuse` as in `memory.liveness`.

    Raises: OptionError for an alignment below 1.
    """
    if alignment < 1:
        raise OptionError(f"place: alignment is {alignment}, expected at least 1 byte.")
    pieces = lifetimes(schedule, unread=unread, reuse=reuse)
    padded = [replace(piece, bytes=-(-piece.bytes // alignment) * alignment) for piece in pieces]
    peak = max(timeline(padded, len(schedule.operations)), default=0)
    plans = {
        "by size": _largest_first(padded, lambda piece: piece.bytes),
        "by area": _largest_first(padded, lambda piece: piece.bytes * (piece.last - piece.first + 1)),
        "both ends": _both_ends(padded, peak),
    }
    ends = {
        method: max((at + pieces[index].bytes for index, at in plan.items()), default=0)
        for method, plan in plans.items()
        if len(plan) == len(pieces)
    }
    method = min(ends, key=lambda name: ends[name])
    return Arena(
        offsets={tensor: at for index, at in plans[method].items() for tensor in pieces[index].activations},
        arena_bytes=ends[method],
        bound_bytes=max(timeline(pieces, len(schedule.operations)), default=0),
        method=method,
    )


def _largest_first(pieces: Sequence[Lifetime], size: Callable[[Lifetime], int]) -> dict[int, int]:
    """Offsets by index of the piece."""
    room = sum(piece.bytes for piece in pieces)
    plan: dict[int, int] = {}
    for index in sorted(range(len(pieces)), key=lambda i: (-size(pieces[i]), pieces[i].first)):
        plan[index] = next(_gaps(index, pieces, plan, room))[0]
    return plan


def _both_ends(pieces: Sequence[Lifetime], room: int) -> dict[int, int]:
    """Offsets by index of the piece; without the pieces that found no place below `room`."""
    plan: dict[int, int] = {}
    for index in sorted(range(len(pieces)), key=lambda i: (pieces[i].first, -pieces[i].bytes)):
        gaps = list(_gaps(index, pieces, plan, room))
        if not gaps:
            break
        plan[index] = 0 if gaps[0][0] == 0 else gaps[-1][1] - pieces[index].bytes
    return plan


def _gaps(
    index: int, pieces: Sequence[Lifetime], plan: Mapping[int, int], room: int
) -> Iterator[tuple[int, int]]:
    """From the bottom up, the ranges that are free over the lifetime of the piece and hold it."""
    piece, top = pieces[index], 0
    taken = sorted((at, at + pieces[i].bytes) for i, at in plan.items() if piece.overlaps(pieces[i]))
    for start, end in [*taken, (room, room)]:
        if start - top >= piece.bytes:
            yield top, start
        top = max(top, end)
