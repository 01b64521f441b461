"""Order: the operations in another order, so that fewer bytes of activations are alive at once.

    minimize over orders   max over operations of the bytes alive during it      (`memory.liveness`)

What is alive after a set of operations has run does not depend on the order within the set. So the best order
is a path from the empty set to the full one whose largest step is least: Dijkstra's search with maximum for
sum. An operation that needs no more than what any order must need, and leaves no more alive than before, is
run at once: moving it forward from wherever an optimal order has it frees no less and costs no more.
The problem is NP-hard, so the search is bounded. Where it does not end, the order is the better of the given
one and of "smallest increase first", and `optimal` is False unless its peak is a lower bound.
Source: Ahn et al., "Ordering Chaos", MLSys 2020, arXiv:2003.02369 (dynamic programming over executed sets);
Sethi, "Complete register allocation problems", SIAM J. Computing 1975 (NP-hardness).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import count

from .memory import Memory, counted, liveness, overwritable
from .schedule import Schedule


@dataclass(frozen=True)
class Ordered:
    """A permutation of the operations of a schedule, and the schedule so ordered.

    method: "given" (the order stays), "greedy" (smallest increase first) or "exact" (searched).
    """

    order: tuple[int, ...]
    schedule: Schedule
    memory: Memory
    optimal: bool  # proved: no order has a smaller peak
    method: str


def best_order(
    schedule: Schedule, *, max_exact: int = 20_000, unread: bool = False, reuse: bool = False
) -> Ordered:
    """The order of least peak found; every operation sees the same values as before.

    max_exact: sets of operations the search may look at (some 10,000 a second); 0 for greedy alone.
    unread, reuse: as in `memory.liveness`.
    """

    def ordered(order: tuple[int, ...], method: str) -> Ordered:
        moved = replace(schedule, operations=tuple(schedule.operations[i] for i in order))
        memory = liveness(moved, unread=unread, reuse=reuse)
        return Ordered(order, moved, memory, memory.peak_bytes == memory.lower_bound_bytes, method)

    best = ordered(tuple(range(len(schedule.operations))), "given")
    if best.optimal:
        return best
    graph = _Graph(schedule, unread=unread, reuse=reuse)
    greedy = ordered(graph.greedy(), "greedy")
    if greedy.memory.peak_bytes < best.memory.peak_bytes:
        best = greedy
    if best.optimal or max_exact < 1:
        return best
    found, finished = graph.search(best.memory, max_exact)
    if found is not None:
        best = ordered(found, "exact")
    return replace(best, optimal=best.optimal or finished)


class _Graph:
    """Which operation must wait for which, and what each adds and frees; sets are bit masks of operations."""

    def __init__(self, schedule: Schedule, *, unread: bool, reuse: bool) -> None:
        kept = counted(schedule, unread=unread)
        sizes, inputs, outputs = schedule.sizes, set(schedule.inputs), set(schedule.outputs)
        self.size = len(schedule.operations)
        self.before = _dependencies(schedule)
        self.after: list[list[int]] = [[] for _ in range(self.size)]
        for index, needed in enumerate(self.before):
            while needed:
                self.after[(needed & -needed).bit_length() - 1].append(index)
                needed &= needed - 1
        users = dict.fromkeys(kept, 0)
        self.created = [0] * self.size
        for index, operation in enumerate(schedule.operations):
            for tensor in {*operation.reads, *operation.writes} & kept:
                if not users[tensor] and tensor not in inputs:
                    self.created[index] += sizes[tensor]
                users[tensor] |= 1 << index
        self.mortal = [  # what dies with an operation, if all its other users have run: (users, bytes)
            [(users[t], sizes[t]) for t in ({*o.reads, *o.writes} & kept) - outputs]
            for o in schedule.operations
        ]
        pairs = overwritable(schedule, kept) if reuse else {}
        self.shared = {index: (users[source], sizes[source]) for index, (source, _) in pairs.items()}
        self.start = sum(sizes[t] for t in kept & inputs)

    def ready(self) -> frozenset[int]:
        """Operations that wait for none."""
        return frozenset(index for index in range(self.size) if not self.before[index])

    def step(self, index: int, done: int, live: int) -> tuple[int, int]:
        """Bytes alive during an operation and after it."""
        now = done | 1 << index
        during = live + self.created[index]
        after = during - sum(size for users, size in self.mortal[index] if users & ~now == 0)
        if index in self.shared:
            users, size = self.shared[index]
            if users & ~now == 0:
                during -= size
        return during, after

    def release(self, index: int, done: int, ready: frozenset[int]) -> frozenset[int]:
        """The ready operations after `index` has run; `done` includes it."""
        return (ready - {index}) | {i for i in self.after[index] if self.before[i] & ~done == 0}

    def greedy(self) -> tuple[int, ...]:
        """Smallest increase first; among equals the smaller step, then the given order."""
        done, live, ready = 0, self.start, self.ready()
        order: list[int] = []
        while ready:
            steps = {index: self.step(index, done, live) for index in ready}
            index = min(ready, key=lambda i: (steps[i][1], steps[i][0], i))
            order.append(index)
            done, live = done | 1 << index, steps[index][1]
            ready = self.release(index, done, ready)
        return tuple(order)

    def search(self, known: Memory, limit: int) -> tuple[tuple[int, ...] | None, bool]:
        """An order whose peak is less than the known one, None where there is none, and whether that is sure."""
        full, tie = (1 << self.size) - 1, count()
        least: dict[int, int] = {}
        came: dict[int, tuple[int, tuple[int, ...]]] = {}
        heap: list[tuple[int, int, int, int, int, frozenset[int]]] = []

        def push(
            peak: int, came_from: int, run: list[int], done: int, live: int, ready: frozenset[int]
        ) -> None:
            done, live, ready = self._run_free(peak, done, live, ready, run)
            if peak < least.get(done, known.peak_bytes):
                least[done], came[done] = peak, (came_from, tuple(run))
                heapq.heappush(heap, (peak, -done.bit_count(), next(tie), done, live, ready))

        push(known.lower_bound_bytes, 0, [], 0, self.start, self.ready())
        while heap:
            peak, _, _, done, live, ready = heapq.heappop(heap)
            if done == full:
                return self._path(came, full), True
            if peak > least[done]:
                continue  # it was reached again on a better path
            if limit <= 0:
                return None, False
            limit -= 1
            for index in ready:
                during, after = self.step(index, done, live)
                if during < known.peak_bytes:
                    now = done | 1 << index
                    push(max(peak, during), done, [index], now, after, self.release(index, now, ready))
        return None, True

    def _run_free(
        self, peak: int, done: int, live: int, ready: frozenset[int], run: list[int]
    ) -> tuple[int, int, frozenset[int]]:
        """Run all that costs nothing; `run` takes the operations."""
        moved = True
        while moved:
            moved = False
            for index in ready:
                during, after = self.step(index, done, live)
                if during <= peak and after <= live:
                    run.append(index)
                    done, live = done | 1 << index, after
                    ready = self.release(index, done, ready)
                    moved = True
                    break
        return done, live, ready

    @staticmethod
    def _path(came: dict[int, tuple[int, tuple[int, ...]]], done: int) -> tuple[int, ...]:
        parts: list[tuple[int, ...]] = []
        while done:
            done, run = came[done]
            parts.append(run)
        return tuple(index for run in reversed(parts) for index in run)


def _dependencies(schedule: Schedule) -> list[int]:
    """For each operation the mask of those that must run before it.

    They are the last that wrote what it reads or writes, and the readers since of what it writes.
    """
    writer: dict[int, int] = {}
    readers: dict[int, int] = {}
    before = []
    for index, operation in enumerate(schedule.operations):
        needed = 0
        for tensor in operation.reads:
            needed |= writer.get(tensor, 0)
        for tensor in operation.writes:
            needed |= writer.get(tensor, 0) | readers.get(tensor, 0)
        for tensor in operation.reads:
            readers[tensor] = readers.get(tensor, 0) | 1 << index
        for tensor in operation.writes:
            writer[tensor], readers[tensor] = 1 << index, 0
        before.append(needed)
    return before
