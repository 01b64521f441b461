"""Observers against brute force and ONNX Runtime's calibrators, and the quantizer that a range settles."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gossamer.errors import ExportError, MeasureError, OptionError
from gossamer.quantizers import Affine, Grid, Quantizer
from gossamer.quantizers.histogram import CHUNK, Histogram
from gossamer.quantizers.observers import (
    NAMES,
    Entropy,
    MeanSquare,
    MinMax,
    MovingAverage,
    Observer,
    Percentile,
    find,
)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(observer: Observer, *batches: Tensor) -> Observer:
    for batch in batches:
        observer.observe(batch)
    return observer


BATCHES = st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), min_size=1, max_size=6)


# -- histogram ---------------------------------------------------------------------------------------------------------


@given(batches=BATCHES)
@settings(deadline=None)
def test_a_histogram_counts_every_value_in_the_bin_that_holds_it(batches: list[list[float]]) -> None:
    histogram = Histogram(bins=16)

    for batch in batches:
        histogram.add(torch.tensor(batch))

    everything = np.array([x for batch in batches for x in batch], np.float32).astype(np.float64)
    edges = histogram.edges
    by_hand = [int(((everything >= a) & (everything < b)).sum()) for a, b in itertools.pairwise(edges)]
    assert histogram.counts.tolist() == by_hand
    assert sum(by_hand) == everything.size
    assert (histogram.low, histogram.high) == (everything.min(), everything.max())


@given(batches=BATCHES, data=st.data())
@settings(deadline=None)
def test_a_histogram_depends_on_neither_order_nor_batches(
    batches: list[list[float]], data: st.DataObject
) -> None:
    whole, shuffled = Histogram(bins=16), Histogram(bins=16)
    everything = [x for batch in batches for x in batch]

    whole.add(torch.tensor(everything))
    for x in data.draw(st.permutations(everything)):
        shuffled.add(torch.tensor([x]))

    assert np.array_equal(whole.counts, shuffled.counts)
    assert np.array_equal(whole.edges, shuffled.edges)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 7.0, 1e30])
def test_a_histogram_has_between_bins_and_twice_as_many_and_zero_on_an_edge(scale: float) -> None:
    histogram = Histogram(bins=100)

    for growth in (1e-6, 1.0, 3.0, 1000.0):
        histogram.add(values(1000) * scale * growth)

    assert 100 <= histogram.counts.size <= 200
    assert 0.0 in histogram.edges
    assert histogram.counts.sum() == 4000


def test_a_large_batch_is_counted_in_pieces_without_loss() -> None:
    x = values(CHUNK + 12345)
    histogram = Histogram()

    histogram.add(x)

    assert histogram.counts.sum() == x.numel()
    assert np.array_equal(histogram.counts, np.histogram(x.double().numpy(), histogram.edges)[0])


def test_the_folded_histogram_is_that_of_magnitudes() -> None:
    x = values(5000) + 0.3
    histogram = Histogram(bins=64)
    histogram.add(x)

    folded = histogram.folded()

    edges = np.arange(folded.size + 1) * histogram.width
    assert np.array_equal(folded, np.histogram(x.abs().double().numpy(), edges)[0])


# -- observers ---------------------------------------------------------------------------------------------------------


def test_minmax_keeps_the_smallest_and_largest_of_all_batches() -> None:
    batches = [values(3, 4, seed=s) for s in range(5)]

    low, high = seen(MinMax(), *batches).range()

    assert (low, high) == (min(float(b.min()) for b in batches), max(float(b.max()) for b in batches))


def test_moving_average_starts_at_the_first_batch_and_follows_the_formula() -> None:
    batches = [values(50, seed=s) * (s + 1) for s in range(6)]

    low, high = seen(MovingAverage(momentum=0.25), *batches).range()

    expected = [float(batches[0].min()), float(batches[0].max())]
    for batch in batches[1:]:
        for end, value in enumerate((float(batch.min()), float(batch.max()))):
            expected[end] = 0.75 * expected[end] + 0.25 * value
    assert (low, high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("percent", [60.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("kind", ["two-sided", "positive", "negative", "symmetric"])
def test_percentile_is_the_shortest_range_of_bins_that_keeps_enough(percent: float, kind: str) -> None:
    x = values(20_000).double()
    x = {"positive": x.abs(), "negative": -x.abs()}.get(kind, x + 0.5)
    observer = seen(Percentile(percent=percent, bins=200), x)
    low, high = observer.range(symmetric=kind == "symmetric")
    width, rest = observer.histogram.width, round((1 - percent / 100) * x.numel(), 6)

    above, below = int((x > high).sum()), int((x < low).sum())

    if kind == "symmetric":
        reach = max(-low, high)
        assert int((x.abs() > reach).sum()) <= rest
        assert percent == 100 or int((x.abs() > reach - width).sum()) > rest
    elif kind == "two-sided":
        assert max(above, below) <= rest / 2
        assert percent == 100 or int((x > high - width).sum()) > rest / 2
        assert percent == 100 or int((x < low + width).sum()) > rest / 2
    else:
        assert above + below <= rest
        assert (low if kind == "positive" else high) == (x.min() if kind == "positive" else x.max())
        assert percent == 100 or int((x.abs() > max(-low, high) - width).sum()) > rest


@pytest.mark.parametrize("percent", [90.0, 99.9, 99.999])
@pytest.mark.parametrize("symmetric", [False, True])
def test_percentile_agrees_with_onnxruntime_on_the_same_histogram(percent: float, symmetric: bool) -> None:
    x = values(200_000)
    observer = seen(Percentile(percent=percent), x)
    collector = HistogramCollector("percentile", symmetric, 2048, 128, percent, None)
    histogram = observer.histogram
    counts = histogram.folded() if symmetric else histogram.counts
    edges = np.arange(counts.size + 1) * histogram.width if symmetric else histogram.edges
    ends = np.float64(histogram.low), np.float64(histogram.high)
    collector.histogram_dict = {"x": (counts, edges, *ends)}

    theirs = [float(end) for end in collector.compute_percentile()["x"][:2]]

    # onnxruntime takes the lower edge of the bin in which the percentile lies
    assert list(observer.range(symmetric=symmetric)) == pytest.approx(theirs, abs=histogram.width)


def mean_square(x: Tensor, grid: Grid, p: float) -> float:
    return float((x - grid.fake(x)).abs().pow(p).sum())


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("p", [2.0, 2.4])
def test_mse_of_a_symmetric_grid_is_the_best_of_all_clippings(bits: int, p: float) -> None:
    x = values(30_000).double()
    full = float(x.abs().max())
    options = {"bits": bits, "signed": True, "symmetric": True}
    errors = {
        k: mean_square(x, Grid.of_range(-full * k / 100, full * k / 100, **options), p)
        for k in range(20, 101)
    }

    low, high = seen(MeanSquare(p=p), x).range(**options)

    assert low == -high
    assert mean_square(x, Grid.of_range(low, high, **options), p) <= min(errors.values()) * 1.0005
    assert high < 0.9 * full


def test_mse_of_two_ends_is_within_a_percent_of_the_best_of_all_pairs() -> None:
    x = torch.cat([values(3000).double(), values(300, seed=1).double() * 3 + 2])
    ends = float(x.min()), float(x.max())
    pairs = itertools.product(range(20, 101, 2), repeat=2)
    best = min(
        mean_square(x, Grid.of_range(ends[0] * a / 100, ends[1] * b / 100, bits=4), 2.0) for a, b in pairs
    )

    low, high = seen(MeanSquare(), x).range(bits=4)

    assert mean_square(x, Grid.of_range(low, high, bits=4), 2.0) <= 1.01 * best


def test_mse_leaves_the_end_at_zero_of_a_positive_range() -> None:
    low, high = seen(MeanSquare(), values(10_000).relu()).range(bits=3)

    assert low == 0.0
    assert 0 < high < 3


def entropy_by_hand(x: Tensor, width: float, levels: int) -> float:
    """The threshold of the specification with plain loops, on bins of this width."""
    h = [0] * (int(float(x.abs().max()) / width) + 1)
    for value in x.abs().tolist():
        h[int(value / width)] += 1
    h[0] = min(h[0], h[1])
    best, best_i = math.inf, 0
    for i in range(levels, len(h) + 1):
        p = [float(n) for n in h[:i]]
        p[-1] += sum(h[i:])
        q = [0.0] * i
        for level in range(levels):
            group = range(level * i // levels, (level + 1) * i // levels)
            filled = [j for j in group if p[j] > 0]
            for j in filled:
                q[j] = sum(h[k] for k in group) / len(filled)
        smoothed = [[max(n, 1e-4) / sum(max(m, 1e-4) for m in d) for n in d] for d in (p, q)]
        divergence = sum(a * math.log(a / b) for a, b in zip(*smoothed, strict=True))
        if divergence < best:
            best, best_i = divergence, i
    return (best_i + 0.5) * width


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [8, 7])
def test_entropy_is_the_threshold_of_plain_loops(seed: int, bits: int) -> None:
    x = values(700, seed=seed).double() ** 3
    observer = seen(Entropy(bins=24, levels=16), x)

    low, high = observer.range(bits=bits)

    expected = entropy_by_hand(x, observer.histogram.width, 16 * 2**bits // 256)
    assert high == pytest.approx(min(expected, float(x.max())))
    assert low == pytest.approx(max(-expected, float(x.min())))


def test_entropy_clips_about_where_onnxruntime_does_on_the_same_histogram() -> None:
    x = values(100_000)
    x = torch.cat([x, -x, torch.tensor([9.0, -9.0])])
    observer = seen(Entropy(bins=128, levels=32), x)
    folded = observer.histogram.folded()
    width = observer.histogram.width
    counts = np.concatenate([folded[::-1], folded])
    edges = (np.arange(counts.size + 1) - folded.size) * width
    collector = HistogramCollector("entropy", True, counts.size, 64, 99.9, None)
    ends = np.float64(observer.histogram.low), np.float64(observer.histogram.high)
    collector.histogram_dict = {"x": (counts, edges, *ends)}

    theirs = float(collector.compute_entropy()["x"][1])

    # its windows have an odd number of bins around zero, the last of its levels takes all that is left over
    _, high = observer.range()
    assert high == pytest.approx(theirs, rel=0.1)
    assert high < 6


def test_zeros_of_a_relu_do_not_move_the_threshold_of_entropy() -> None:
    x = values(50_000).abs()

    alone = seen(Entropy(), x).range()
    among_zeros = seen(Entropy(), x, torch.zeros(200_000)).range()

    assert among_zeros == (0.0, alone[1])
    assert alone[1] > 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_observer_gives_a_range_within_the_values(name: str, symmetric: bool) -> None:
    for x in (values(4000), values(4000).relu(), -values(4000).relu(), values(4000) + 10):
        low, high = seen(find(name), x).range(bits=4, signed=symmetric, symmetric=symmetric)

        assert low <= high
        reach = float(x.abs().max())
        assert -reach <= low
        assert high <= reach


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "x", [torch.zeros(8), torch.full((8,), 2.5), torch.full((8,), -1e-3), torch.zeros(0, 4)], ids=str
)
def test_constant_and_empty_activations_give_a_usable_grid(name: str, x: Tensor) -> None:
    low, high = seen(find(name), x).range()

    grid = Grid.of_range(low, high)

    assert torch.allclose(grid.fake(x), x, rtol=1e-2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_with_their_number(name: str, bad: float) -> None:
    x = values(3, 5)
    x[1, 2] = bad

    with pytest.raises(MeasureError, match="1 of 15 observed values are NaN or infinite"):
        find(name).observe(x)


@pytest.mark.parametrize("name", NAMES)
def test_a_range_of_nothing_says_what_to_do(name: str) -> None:
    with pytest.raises(MeasureError, match="observed no value"):
        find(name).range()


def test_an_unknown_observer_suggests_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'percentile'"):
        find("percentil")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: MovingAverage(momentum=0.0),
        lambda: Percentile(percent=101),
        lambda: Percentile(bins=3),
        lambda: MeanSquare(p=0),
        lambda: Entropy(levels=5000),
        lambda: Affine(momentum=2.0),
        lambda: Affine(bits=1),
    ],
)
def test_a_wrong_option_says_what_it_is_and_what_was_expected(wrong: object) -> None:
    with pytest.raises(OptionError, match=r"is .*, expected"):
        wrong()  # type: ignore[operator]


# -- affine ------------------------------------------------------------------------------------------------------------


def settled(batches: Sequence[Tensor], **options: object) -> Affine:
    quantizer = Affine(**options)  # type: ignore[arg-type]
    quantizer.state = "observe"
    for batch in batches:
        assert quantizer(batch) is batch
    quantizer.settle()
    return quantizer


@pytest.mark.parametrize("observer", [*NAMES, Percentile(percent=99.0, bins=512)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"bits": 4, "signed": True}, {"signed": True, "symmetric": True}, {"symmetric": True}],
    ids=str,
)
def test_affine_rounds_to_the_grid_of_the_observed_range(
    observer: object, options: dict[str, object]
) -> None:
    batches = [values(64, 9, seed=s) for s in range(3)]
    quantizer = settled(batches, observer=observer, **options)
    expected = seen(
        find(observer) if isinstance(observer, str) else Percentile(percent=99.0, bins=512), *batches
    )
    grid = Grid.of_range(*expected.range(**options), **options)  # type: ignore[arg-type]

    out = quantizer(batches[0])

    assert quantizer.grid().zero_point == grid.zero_point
    assert quantizer.grid().scale == pytest.approx(grid.scale)
    assert torch.allclose(out, grid.fake(batches[0]), atol=1e-6)
    assert out.unique().numel() <= 2**quantizer.bits


def test_the_gradient_passes_inside_the_range_and_not_outside() -> None:
    quantizer = settled([torch.tensor([0.0, 1.0])], bits=4)
    x = torch.tensor([-0.5, 0.01, 0.7, 1.0, 1.4], requires_grad=True)

    quantizer(x).sum().backward()

    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_while_a_network_is_traced_one_operator_gives_what_training_gave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantizer = settled([values(64, 9).relu()], bits=5).eval()
    x = values(8, 9, seed=7).relu()
    expected, grid = quantizer(x), quantizer.grid()
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            calls.append((str(op), args[1:]))
            return op(*args, **(kwargs or {}))

    calls: list[tuple[str, tuple[object, ...]]] = []
    with Seen():
        out = quantizer(x)

    assert torch.equal(out, expected)
    assert calls[0] == ("gossamer.fake_quantize.default", (grid.scale, grid.zero_point, grid.qmin, grid.qmax))


def test_a_quantizer_in_training_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = settled([values(10)]).train()
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)

    with pytest.raises(ExportError, match=r"Call settle\(\), and model.eval\(\)"):
        quantizer(values(10))


@pytest.mark.slow
def test_torch_export_keeps_the_grid_of_a_quantizer() -> None:
    quantizer = settled([values(64, 9).relu()], bits=5)
    x = values(8, 9, seed=7).relu()

    program = torch.export.export(nn.Sequential(quantizer).eval(), (x,))

    assert "fake_quantize" in program.graph_module.code
    assert torch.equal(program.module()(x), quantizer(x))


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_a_state_dict_carries_state_grid_and_range(momentum: float | None) -> None:
    quantizer = settled([values(64, seed=1)], bits=6, observer="percentile", momentum=momentum)
    fresh = Affine(bits=6, momentum=momentum)
    x = values(4, 64, seed=2)
    quantizer(x)

    fresh.load_state_dict(quantizer.state_dict())

    assert fresh.state == "quantize"
    assert fresh.grid() == quantizer.grid()
    assert torch.equal(fresh(x), quantizer(x))  # a second moving average step in both
    assert all(isinstance(v, Tensor) for v in quantizer.state_dict().values())


def test_ranges_follow_the_batches_in_training_and_stay_in_eval() -> None:
    first, second = torch.tensor([-1.0, 3.0]), torch.tensor([-2.0, 1.0])
    quantizer = settled([first], momentum=0.25)

    quantizer.train()(second)
    trained = quantizer.grid()
    quantizer.eval()(second * 100)

    assert trained.scale == pytest.approx((2.5 + 1.25) / 255)
    assert trained.zero_point == 85
    assert quantizer.grid() == trained


def test_a_training_batch_with_nan_is_refused_where_ranges_follow() -> None:
    quantizer = settled([values(10)], momentum=0.1).train()

    with pytest.raises(MeasureError, match="1 of 1 observed"):
        quantizer(torch.tensor([float("nan")]))


def test_settling_again_forgets_what_was_observed_before() -> None:
    quantizer = settled([torch.tensor([0.0, 100.0])])
    quantizer.state = "observe"
    quantizer(torch.tensor([0.0, 1.0]))

    quantizer.settle()

    assert quantizer.grid().high == pytest.approx(1.0)


def test_off_and_observing_leave_values_alone_and_copies_are_independent() -> None:
    quantizer = settled([torch.tensor([0.0, 1.0])], bits=2)
    other = copy.deepcopy(quantizer)
    other.state = "off"
    x = torch.tensor([0.2, 0.4])

    assert other(x) is x
    assert quantizer(x).tolist() == pytest.approx([1 / 3, 1 / 3])
    assert isinstance(other, Quantizer)
