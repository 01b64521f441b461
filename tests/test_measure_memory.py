"""Activation memory: hand-worked schedules, and every figure against a simulation or a search by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from gossamer.errors import MeasureError, OptionError
from gossamer.measure.arena import place
from gossamer.measure.dispatch import record_torch
from gossamer.measure.memory import lifetimes, liveness
from gossamer.measure.order import best_order
from gossamer.measure.schedule import Operation, Schedule


def op(
    layer: str, reads: tuple[int, ...], writes: tuple[int, ...], *, elementwise: bool = False
) -> Operation:
    return Operation(layer, layer, reads, writes, elementwise=elementwise)


def chain(*sizes: int, elementwise: bool = False) -> Schedule:
    """Activation 0 of the first size is the input; each operation turns one into the next."""
    steps = [op(f"step{i}", (i,), (i + 1,), elementwise=elementwise) for i in range(len(sizes) - 1)]
    return Schedule(tuple(steps), dict(enumerate(sizes)), (0,), (len(sizes) - 1,))


# worked by hand


def test_three_convolutions_in_a_chain_need_the_largest_input_with_its_output():
    # 3 x 32 x 32 -> 16 x 32 x 32 -> 32 x 16 x 16 -> 8 x 16 x 16, float32
    sizes = [4 * 3 * 32 * 32, 4 * 16 * 32 * 32, 4 * 32 * 16 * 16, 4 * 8 * 16 * 16]

    memory = liveness(chain(*sizes))

    assert memory.timeline == (12288 + 65536, 65536 + 32768, 32768 + 8192)
    assert (memory.peak_bytes, memory.at) == (98304, 1)
    assert memory.lower_bound_bytes == 98304
    assert [(one.layer, one.bytes) for one in memory.live] == [("step0", 65536), ("step1", 32768)]


def test_a_residual_block_keeps_its_shortcut_alive():
    steps = (op("conv1", (0,), (1,)), op("conv2", (1,), (2,)), op("add", (2, 0), (2,)))
    block = Schedule(steps, {0: 100, 1: 60, 2: 100}, (0,), (2,))

    memory = liveness(block)

    assert memory.peak_bytes == 100 + 60 + 100  # shortcut, input and output of the second convolution
    assert steps[memory.at].layer == "conv2"
    assert memory.live[0].layer is None  # the input of the model
    assert memory.lower_bound_bytes == 200  # of the addition: no order of other operations needs less


def test_densely_connected_layers_keep_every_result_until_the_last_concatenation():
    # growth 12 from 24 channels: each layer reads the concatenation of all before it
    steps = (
        *(op("conv1", (0,), (1,)), op("concat1", (0, 1), (2,))),
        *(op("conv2", (2,), (3,)), op("concat2", (0, 1, 3), (4,))),
        *(op("conv3", (4,), (5,)), op("concat3", (0, 1, 3, 5), (6,))),
    )
    dense = Schedule(steps, {0: 24, 1: 12, 2: 36, 3: 12, 4: 48, 5: 12, 6: 60}, (0,), (6,))

    memory = liveness(dense)

    assert memory.timeline == (24 + 12, 36 + 36, 36 + 36 + 12, 48 + 48, 48 + 48 + 12, 60 + 60)
    assert (memory.peak_bytes, memory.at) == (120, 5)


def resnet18(*, inplace: bool, indices: bool = False) -> Schedule:
    """Float32 at 224, batch 1, batch norms folded; additions in place, as torch's ResNet writes them."""
    steps: list[Operation] = []
    sizes = {0: 4 * 3 * 224 * 224}

    def new(channels: int, side: int) -> int:
        sizes[len(sizes)] = 4 * channels * side * side
        return len(sizes) - 1

    def conv(layer: str, source: int, channels: int, side: int) -> int:
        target = new(channels, side)
        steps.append(op(layer, (source,), (target,)))
        return target

    def relu(layer: str, source: int, channels: int, side: int) -> int:
        target = source if inplace else new(channels, side)
        steps.append(op(layer, (source,), (target,), elementwise=True))
        return target

    x = relu("relu", conv("conv1", 0, 64, 112), 64, 112)
    pooled = new(64, 56)
    found = ()
    if indices:  # int64, one for each output
        found = (len(sizes),)
        sizes[found[0]] = 8 * 64 * 56 * 56
    steps.append(op("maxpool", (x,), (pooled, *found)))
    x = pooled
    for stage, (channels, side) in enumerate([(64, 56), (128, 28), (256, 14), (512, 7)], 1):
        for block in range(2):
            name, shortcut = f"layer{stage}.{block}", x
            x = relu(f"{name}.relu", conv(f"{name}.conv1", x, channels, side), channels, side)
            x = conv(f"{name}.conv2", x, channels, side)
            if stage > 1 and block == 0:
                shortcut = conv(f"{name}.downsample.0", shortcut, channels, side)
            steps.append(op(name, (x, shortcut), (x,), elementwise=True))
            x = relu(f"{name}.relu", x, channels, side)
    pooled, logits = new(512, 1), len(sizes) + 1
    sizes[logits] = 4 * 1000
    steps += [op("avgpool", (x,), (pooled,)), op("fc", (pooled,), (logits,))]
    return Schedule(tuple(steps), sizes, (0,), (logits,))


def test_resnet18_peaks_at_the_max_pool_when_relu_works_in_place():
    schedule = resnet18(inplace=True)

    memory = liveness(schedule)

    during = dict(zip([one.layer for one in schedule.operations], memory.timeline, strict=True))
    assert memory.peak_bytes == 4 * (64 * 112 * 112 + 64 * 56 * 56) == 4_014_080
    assert schedule.operations[memory.at].layer == "maxpool"
    assert during["conv1"] == 4 * (3 * 224 * 224 + 64 * 112 * 112) == 3_813_376
    assert during["layer1.0.conv2"] == 3 * 4 * 64 * 56 * 56 == 2_408_448
    assert [(one.layer, one.bytes) for one in memory.live] == [("conv1", 3_211_264), ("maxpool", 802_816)]
    assert memory.lower_bound_bytes == memory.peak_bytes


def test_resnet18_needs_the_first_activation_twice_when_relu_does_not_work_in_place():
    schedule = resnet18(inplace=False)

    memory = liveness(schedule)

    assert memory.peak_bytes == 2 * 4 * 64 * 112 * 112 == 6_422_528
    assert schedule.operations[memory.at].layer == "relu"


def test_reuse_gives_relu_its_input_to_write_over():
    memory = liveness(resnet18(inplace=False), reuse=True)

    assert memory.peak_bytes == liveness(resnet18(inplace=True)).peak_bytes
    assert memory.live[0].activations == (1, 2)  # what conv1 and the ReLU after it wrote


def test_unread_results_count_only_when_asked_for_and_only_while_they_are_written():
    schedule = resnet18(inplace=True, indices=True)

    without, counted = liveness(schedule), liveness(schedule, unread=True)

    assert without.peak_bytes == 4_014_080
    assert counted.peak_bytes == 4_014_080 + 8 * 64 * 56 * 56
    changed = [i for i, (a, b) in enumerate(zip(without.timeline, counted.timeline, strict=True)) if a != b]
    assert [schedule.operations[i].layer for i in changed] == ["maxpool"]


# the edges of the definition


def test_an_input_lives_to_its_last_use_and_an_unused_one_takes_nothing():
    steps = (op("a", (0,), (2,)), op("b", (2, 1), (3,)), op("c", (3,), (4,)))
    schedule = Schedule(steps, {0: 1, 1: 10, 2: 100, 3: 1000, 4: 10_000, 5: 100_000}, (0, 1, 5), (4,))

    assert liveness(schedule).timeline == (111, 1110, 11_000)


def test_an_output_that_is_an_input_lives_from_the_beginning_to_the_end():
    schedule = replace(chain(1, 10, 100, 1000), outputs=(3, 0))

    assert liveness(schedule).timeline == (11, 111, 1101)


def test_an_output_that_no_operation_reads_is_counted():
    schedule = replace(chain(1, 10), outputs=(1,))

    assert liveness(schedule).peak_bytes == 11


def test_an_unread_input_that_is_written_in_place_counts():
    schedule = Schedule((op("fill", (), (0,)), op("new", (), (1,))), {0: 5, 1: 7}, (0,), (1,))

    assert liveness(schedule).timeline == (5, 7)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_schedule_without_operations_needs_nothing(reuse):
    empty = Schedule((), {0: 5}, (0,), (0,))

    memory = liveness(empty, unread=True, reuse=reuse)

    assert (memory.peak_bytes, memory.at, memory.timeline, memory.live) == (0, -1, (), ())
    assert best_order(empty, reuse=reuse).order == ()
    assert (place(empty, reuse=reuse).arena_bytes, place(empty).ratio) == (0, 1.0)


@pytest.mark.parametrize(
    "kept",
    [
        {"outputs": (1, 2)},  # the caller wants to see it
        {"sizes": {0: 4, 1: 8, 2: 4}},  # it does not fit
        {"operations": (op("conv", (0,), (1,)), op("relu", (1,), (2,)))},  # the kernel reads around itself
        {
            "operations": (
                *(op("conv", (0,), (1,)), op("relu", (1,), (2,), elementwise=True)),
                op("add_", (2, 1), (2,), elementwise=True),  # the input is needed again
            )
        },
    ],
)
def test_reuse_keeps_an_input_that_must_not_be_overwritten(kept):
    steps = (op("conv", (0,), (1,)), op("relu", (1,), (2,), elementwise=True))
    schedule = replace(Schedule(steps, {0: 4, 1: 4, 2: 4}, (0,), (2,)), **kept)

    assert liveness(schedule, reuse=True).timeline == liveness(schedule).timeline


def test_reuse_passes_memory_along_a_chain():
    schedule = chain(7, 7, 7, 7, elementwise=True)

    memory = liveness(schedule, reuse=True)

    assert memory.timeline == (7, 7, 7)
    assert memory.live[0].activations == (0, 1, 2, 3)


def test_an_operation_that_reads_what_nothing_wrote_is_named():
    with pytest.raises(MeasureError, match=r"operation 1 \(b, layer 'b'\) reads activation 9"):
        liveness(Schedule((op("a", (0,), (1,)), op("b", (9,), (2,))), {0: 1, 1: 1, 2: 1}, (0,), (2,)))


def test_an_output_that_nothing_wrote_is_named():
    with pytest.raises(MeasureError, match="output 9 of the model"):
        liveness(replace(chain(1, 2), outputs=(9,)))


def test_an_activation_without_a_size_is_named():
    with pytest.raises(MeasureError, match="no bytes for activation 1"):
        liveness(replace(chain(1, 2), sizes={0: 1}))


# against brute force


@st.composite
def schedules(draw, *, longest: int = 9) -> Schedule:
    """Several inputs and outputs, operations in place, results nobody reads, equal sizes."""
    size = st.sampled_from([1, 2, 3, 5, 8, 64, 100])
    sizes = {i: draw(size) for i in range(draw(st.integers(1, 2)))}
    inputs = tuple(sizes)
    steps = []
    for index in range(draw(st.integers(0, longest))):
        known = st.sampled_from(sorted(sizes))
        reads = tuple(draw(st.lists(known, max_size=3, unique=True)))
        writes = []
        if draw(st.integers(0, 3)) == 0:
            writes.append(draw(known))
        for _ in range(draw(st.integers(0 if writes else 1, 2))):
            sizes[len(sizes)] = draw(st.sampled_from([sizes[t] for t in reads])) if reads else draw(size)
            writes.append(len(sizes) - 1)
        steps.append(op(f"op{index}", reads, tuple(writes), elementwise=draw(st.booleans())))
    outputs = tuple(draw(st.lists(st.sampled_from(sorted(sizes)), max_size=2, unique=True)))
    return Schedule(tuple(steps), sizes, inputs, outputs)


def simulate(schedule: Schedule, *, unread: bool, reuse: bool) -> list[int]:
    """Bytes during each operation of a machine that allocates before it and frees after it."""
    steps = schedule.operations

    def used_after(tensor: int, index: int) -> bool:
        later = any(tensor in (*one.reads, *one.writes) for one in steps[index + 1 :])
        return later or tensor in schedule.outputs

    def wanted(tensor: int) -> bool:
        read = any(tensor in one.reads for one in steps)
        return unread or read or tensor in schedule.outputs or tensor in schedule.inputs

    buffers: dict[int, int] = {t: schedule.sizes[t] for t in schedule.inputs if used_after(t, -1)}
    seen = set(schedule.inputs)
    line = []
    for index, step in enumerate(steps):
        moved = None
        for position, tensor in enumerate(step.writes):
            if tensor in seen or not wanted(tensor):
                continue
            seen.add(tensor)
            size = schedule.sizes[tensor]
            source = step.reads[0] if step.reads else None
            may = reuse and step.elementwise and position == 0 and source is not None
            if may and not used_after(source, index) and buffers[source] == size:
                moved = source
                del buffers[source]
            buffers[tensor] = size
        line.append(sum(buffers.values()))
        for tensor in {*step.reads, *step.writes} - {moved}:
            if tensor in buffers and not used_after(tensor, index):
                del buffers[tensor]
    return line


flags = st.fixed_dictionaries({"unread": st.booleans(), "reuse": st.booleans()})


@given(schedules(), flags)
@settings(max_examples=200, deadline=None)
def test_liveness_is_what_a_machine_that_allocates_and_frees_would_hold(schedule, flags):
    line = simulate(schedule, **flags)

    memory = liveness(schedule, **flags)

    assert list(memory.timeline) == line
    assert memory.peak_bytes == max(line, default=0)
    assert memory.at == (line.index(memory.peak_bytes) if line else -1)
    assert sum(one.bytes for one in memory.live) == memory.peak_bytes
    assert memory.lower_bound_bytes <= memory.peak_bytes


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12))
@settings(deadline=None)
def test_a_chain_needs_its_largest_input_and_output_and_an_arena_of_the_same_bytes(sizes):
    schedule = chain(*sizes)

    arena, memory = place(schedule, alignment=1), liveness(schedule)

    assert memory.peak_bytes == max(a + b for a, b in pairwise(sizes)) == memory.lower_bound_bytes
    assert arena.arena_bytes == arena.bound_bytes == memory.peak_bytes


def values(steps: tuple[Operation, ...], schedule: Schedule) -> object:
    """What each operation sees and leaves: a result is the operation, what it read, and what lay there before."""
    held: dict[int, object] = {t: ("input", t) for t in schedule.inputs}
    seen = {}
    for step in steps:
        if any(tensor not in held for tensor in step.reads):
            return None
        seen[step.layer] = (step.layer, *(held[t] for t in step.reads), *(held.get(t) for t in step.writes))
        held.update(dict.fromkeys(step.writes, hash(seen[step.layer])))
    return seen, {t: held[t] for t in schedule.outputs}


@given(schedules(longest=6), flags)
@settings(max_examples=150, deadline=None)
def test_the_best_order_is_the_best_of_all_orders_that_compute_the_same(schedule, flags):
    wanted = values(schedule.operations, schedule)
    least = min(
        liveness(replace(schedule, operations=order), **flags).peak_bytes
        for order in permutations(schedule.operations)
        if values(order, schedule) == wanted
    )

    best = best_order(schedule, **flags)

    assert best.optimal
    assert best.memory.peak_bytes == least
    assert values(best.schedule.operations, schedule) == wanted
    assert tuple(schedule.operations[i] for i in best.order) == best.schedule.operations
    assert liveness(best.schedule, **flags) == best.memory


@given(schedules(), flags)
@settings(max_examples=150, deadline=None)
def test_without_a_search_the_order_still_computes_the_same_in_no_more_memory(schedule, flags):
    best = best_order(schedule, max_exact=0, **flags)

    assert best.method in ("given", "greedy")
    assert values(best.schedule.operations, schedule) == values(schedule.operations, schedule)
    assert best.memory.peak_bytes <= liveness(schedule, **flags).peak_bytes
    if best.optimal:
        assert best.memory.peak_bytes == best_order(schedule, **flags).memory.peak_bytes


def branches(*, width: int) -> Schedule:
    """Each branch expands the input to 50 and shrinks it to 1; given in layers, as a careless export would."""
    steps, sizes = [], {0: 1}
    for branch in range(width):
        steps.append(op(f"expand{branch}", (0,), (1 + branch,)))
        sizes[1 + branch] = 50
    for branch in range(width):
        steps.append(op(f"shrink{branch}", (1 + branch,), (1 + width + branch,)))
        sizes[1 + width + branch] = 1
    sizes[1 + 2 * width] = width
    steps.append(op("concat", tuple(range(1 + width, 1 + 2 * width)), (1 + 2 * width,)))
    return Schedule(tuple(steps), sizes, (0,), (1 + 2 * width,))


def test_branches_are_best_run_one_after_the_other():
    schedule = branches(width=8)

    best = best_order(schedule)

    assert liveness(schedule).peak_bytes == 8 * 50 + 1
    assert best.memory.peak_bytes == 7 + 50 + 1  # results of seven, the last one's inside; the input is dead
    assert best.optimal


def test_a_search_that_runs_out_says_that_its_order_is_not_proved():
    best = best_order(branches(width=8), max_exact=2)

    assert not best.optimal
    assert best.method == "greedy"
    assert best.memory.peak_bytes < liveness(branches(width=8)).peak_bytes


def test_the_search_waits_with_overwriting_until_the_last_read():
    steps = (
        *(op("a", (0,), (1,)), op("b", (1, 0), (2,), elementwise=True)),
        op("c", (1,), (3,)),  # b may write over activation 1 only after this
    )
    schedule = Schedule(steps, {0: 5, 1: 2, 2: 2, 3: 1}, (0,), (3,))

    best = best_order(schedule, unread=True, reuse=True)

    assert (best.memory.peak_bytes, best.order) == (8, (0, 2, 1))
    assert best.optimal


def test_the_search_takes_the_better_of_two_ways_to_the_same_operations():
    steps = (op("a", (0,), (1,)), op("b", (0,), (2,)), op("c", (2,), (3,)), op("d", (1,), (4,)))
    schedule = Schedule(steps, {0: 5, 1: 5, 2: 2, 3: 8, 4: 1}, (0,), (4,))

    best = best_order(schedule, unread=True)

    assert (best.memory.peak_bytes, best.order) == (11, (0, 3, 1, 2))  # a, b, d would hold 12
    assert best.optimal


def test_an_operation_in_place_waits_for_the_readers_of_what_it_overwrites():
    steps = (op("big", (0,), (1,)), op("small", (1,), (2,)), op("add_", (0,), (0,)), op("sum", (0, 2), (3,)))
    schedule = Schedule(steps, {0: 1, 1: 90, 2: 1, 3: 1}, (0,), (3,))

    order = best_order(schedule).order

    assert order.index(2) > order.index(0)


@given(schedules(longest=14), flags, st.sampled_from([1, 4, 64]))
@settings(max_examples=150, deadline=None)
def test_activations_alive_together_never_overlap_in_the_arena(schedule, flags, alignment):
    arena = place(schedule, alignment=alignment, **flags)

    memory = liveness(schedule, **flags)
    pieces = lifetimes(schedule, **flags)
    assert set(arena.offsets) == {tensor for piece in pieces for tensor in piece.activations}
    assert all(at % alignment == 0 for at in arena.offsets.values())
    for index in range(len(schedule.operations)):
        bytes_ = [
            range(at, at + piece.bytes)
            for piece in pieces
            if piece.first <= index <= piece.last
            for at in {arena.offsets[tensor] for tensor in piece.activations}
        ]
        assert sum(map(len, bytes_)) == len(set().union(*bytes_)) == memory.timeline[index]
        assert max((each.stop for each in bytes_), default=0) <= arena.arena_bytes
    assert arena.bound_bytes == memory.peak_bytes <= arena.arena_bytes


def test_placing_at_both_ends_keeps_what_largest_first_would_lose():
    # by size: 10 and 8 at the bottom, 7 above 8, and 6 above 7: 21 bytes for a chain of peak 16
    arena = place(chain(8, 7, 6, 10), alignment=1)

    assert (arena.arena_bytes, arena.method) == (16, "both ends")


def test_placing_by_area_keeps_what_by_size_would_lose():
    # by size: 6 at the bottom, 5 above it, one 4 below 5 and the other above: 15 bytes for a peak of 13
    steps = (op("a", (0,), (1,)), op("b", (0, 1), (2,)), op("c", (2,), (3,)))
    schedule = Schedule(steps, {0: 4, 1: 4, 2: 5, 3: 6}, (0,), (3,))

    arena = place(schedule, alignment=1)

    assert (arena.arena_bytes, arena.method) == (13, "by area")


def test_resnet18_fits_an_arena_of_its_peak():
    arena = place(resnet18(inplace=True))

    assert (arena.arena_bytes, arena.ratio) == (4_014_080, 1.0)


def test_an_alignment_below_one_is_refused():
    with pytest.raises(OptionError, match="alignment is 0"):
        place(chain(1, 2), alignment=0)


# against torch's allocator (benchmarks/peak_memory.py does the same on published networks)


def allocated(model: nn.Module, x: Tensor) -> int:
    """Peak bytes that the allocator handed out during one forward, beyond weights and input."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model(x)
    alive = peak = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def test_a_chain_of_linear_layers_allocates_exactly_its_peak():
    model = nn.Sequential(nn.Linear(10, 300), nn.ReLU(), nn.Linear(300, 400), nn.Tanh(), nn.Linear(400, 10))

    memory = liveness(record_torch(model, torch.randn(2, 10)).schedule)

    assert memory.peak_bytes == 4 * 2 * (400 + 400) == allocated(model, torch.randn(2, 10))


def test_the_allocator_never_hands_out_less_than_the_peak():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.norm = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 8, 3, padding=1),
                nn.BatchNorm2d(8),
            )

        def forward(self, x):
            x = self.stem(x)
            return nn.functional.max_pool2d(nn.functional.relu(self.norm(self.conv(x)), inplace=True) + x, 2)

    model, x = Block().eval(), torch.randn(1, 3, 34, 34)

    memory = liveness(record_torch(model, x).schedule, unread=True)

    assert memory.peak_bytes == 4 * 3 * 8 * 32 * 32  # the shortcut, the branch and their sum
    assert memory.peak_bytes <= allocated(model, x)
