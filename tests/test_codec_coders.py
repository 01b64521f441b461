"""The entropy coders: exact round trips, exact costs, and the bounds each of them promises."""

from __future__ import annotations

import heapq

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import codec, native
from gossamer.codec import Adaptive, Bitpack, Huffman, Rans
from gossamer.codec.choose import CODERS, Coder
from gossamer.codec.symbols import histogram
from gossamer.errors import CodecError, OptionError

ALL = [getattr(codec, name) for name in codec.__all__]


def entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum() / 8)


def bell(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Rounded normal codes over the alphabet, as uniform quantization of weights gives."""
    top = (1 << width) - 1
    drawn = np.random.default_rng(seed).normal(top / 2, max(top / 6, 0.5), count)
    return np.clip(np.round(drawn), 0, top).astype(np.int64)


@st.composite
def fields(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """A field of a distribution hypothesis invents: any support, any skew, up to 30,000 symbols."""
    width = draw(st.integers(1, 16))
    support = draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=60, unique=True))
    weights = draw(st.lists(st.floats(1e-6, 1.0), min_size=len(support), max_size=len(support)))
    power = draw(st.sampled_from([0.0, 1.0, 3.0]))
    count = draw(st.one_of(st.integers(0, 400), st.integers(400, 30_000)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chances = np.asarray(weights) ** power
    return rng.choice(np.asarray(support), count, p=chances / chances.sum()), width


EXTREMES = {
    "empty": (np.zeros(0, np.int64), 5),
    "one": (np.array([3]), 2),
    "one bit": (np.array([0, 1, 1, 0, 1]), 1),
    "constant zero": (np.zeros(10_000, np.int64), 8),
    "constant top": (np.full(10_000, 65_535), 16),
    "every symbol once": (np.arange(65_536), 16),
    "every symbol twice, shuffled": (
        np.random.default_rng(0).permutation(np.repeat(np.arange(65_536), 2)),
        16,
    ),
    "every byte": (np.arange(256), 8),
    "one in a million": (np.eye(1, 1_000_000, 777, dtype=np.int64)[0], 1),
    "two far symbols": (np.random.default_rng(1).integers(0, 2, 50_000) * 65_535, 16),
    "fibonacci": (
        np.repeat(np.arange(24), [1, 1, *np.cumsum([2, 3, 5, 8] * 5)[:20].tolist(), 9000, 20_000]),
        5,
    ),
    "powers of two": (np.repeat(np.arange(18), 1 << np.arange(18)), 5),
    "large alphabet, heavy head": (np.concatenate([np.arange(60_000), np.full(60_000, 9)]), 16),
    "bell": (bell(200_000, 8), 8),
    "wide bell": (bell(100_000, 16), 16),
}


@pytest.mark.parametrize("coder", ALL, ids=lambda coder: coder.tag)
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_fields_come_back_exactly_at_the_announced_cost(coder: type[Coder], name: str) -> None:
    symbols, width = EXTREMES[name]

    payload = coder.encode(symbols, width)
    back = coder.decode(payload, symbols.size, width)

    assert np.array_equal(back, symbols)
    assert back.dtype == (np.uint8 if width <= 8 else np.uint16)
    assert coder.cost_bytes(symbols, width) == len(payload)


@settings(max_examples=60, deadline=None)
@given(fields())
def test_any_field_comes_back_exactly_from_every_coder(field: tuple[np.ndarray, int]) -> None:
    symbols, width = field
    for coder in ALL:
        payload = coder.encode(symbols, width)
        assert np.array_equal(coder.decode(payload, symbols.size, width), symbols)
        assert coder.cost_bytes(symbols, width) == len(payload)


@settings(max_examples=80, deadline=None)
@given(fields())
def test_rans_is_within_half_a_percent_and_eight_bytes_of_the_entropy(field: tuple[np.ndarray, int]) -> None:
    symbols, width = field
    stream = len(Rans.encode(symbols, width)) - Rans.table_bytes(symbols, width)
    assert stream <= 1.005 * entropy_bytes(symbols) + 8


@pytest.mark.parametrize("name", EXTREMES)
def test_rans_keeps_its_bound_on_extreme_fields(name: str) -> None:
    symbols, width = EXTREMES[name]
    stream = len(Rans.encode(symbols, width)) - Rans.table_bytes(symbols, width)
    assert stream <= 1.005 * entropy_bytes(symbols) + 8


@pytest.mark.parametrize("rare", [1e-6, 1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("width", [1, 8, 16])
def test_rans_keeps_its_bound_on_skewed_fields(rare: float, width: int) -> None:
    rng = np.random.default_rng(width)
    symbols = np.where(rng.random(2_000_000) < rare, rng.integers(0, 1 << width, 2_000_000), 1)
    stream = len(Rans.encode(symbols, width)) - Rans.table_bytes(symbols, width)
    assert stream <= 1.005 * entropy_bytes(symbols) + 8


@settings(max_examples=60, deadline=None)
@given(fields())
def test_huffman_is_within_one_bit_per_symbol_of_the_entropy(field: tuple[np.ndarray, int]) -> None:
    symbols, width = field
    stream = len(Huffman.encode(symbols, width)) - Huffman.table_bytes(symbols, width)
    assert stream <= entropy_bytes(symbols) + symbols.size / 8 + 16


def brute_force_huffman_bits(counts: np.ndarray) -> int:
    """The optimum, as the sum of all merged weights."""
    heap = [int(c) for c in counts if c]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def limited_optimum_bits(counts: np.ndarray, limit: int) -> int:
    """The best prefix code with codes of at most `limit` bits, by dynamic programming over tree levels.

    Sorted by falling weight, codes lengthen; a state is (symbols placed, open nodes of this level).
    """
    weights = np.sort(counts[counts > 0])[::-1]
    prefix = np.concatenate([[0], np.cumsum(weights)])
    n = weights.size
    best = {(0, 2): 0}
    for _ in range(limit):
        following: dict[tuple[int, int], int] = {}
        for (placed, open_nodes), cost in best.items():
            cost += int(prefix[n] - prefix[placed])  # everything not placed yet is at least this deep
            for leaves in range(min(open_nodes, n - placed) + 1):
                state = (placed + leaves, min(2 * (open_nodes - leaves), 2 * n))
                following[state] = min(following.get(state, cost), cost)
        best = following
    return min(cost for (placed, _), cost in best.items() if placed == n)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=2, max_size=64))
def test_code_lengths_reach_the_brute_force_optimum(values: list[int]) -> None:
    counts = np.zeros(64, np.int64)
    counts[: len(values)] = values
    lengths = Huffman.code_lengths(counts, 6).astype(np.int64)
    if (counts > 0).sum() < 2:
        assert not lengths.any()
        return
    assert np.exp2(-lengths[lengths > 0].astype(float)).sum() == 1.0
    assert (lengths * counts).sum() == brute_force_huffman_bits(counts)


def test_limited_code_lengths_are_the_best_under_the_limit() -> None:
    counts = np.zeros(32, np.int64)
    counts[:24] = [1, 1, *(2 ** np.arange(1, 23)).tolist()]  # the free optimum is 23 bits deep
    lengths = Huffman.code_lengths(counts, 5).astype(np.int64)

    assert lengths.max() == 15
    assert np.exp2(-lengths[:24].astype(float)).sum() == 1.0
    assert (lengths * counts).sum() == limited_optimum_bits(counts, 15)


def test_huffman_codes_as_short_as_constriction_s() -> None:
    symbols = bell(20_000, 6)
    counts = histogram(symbols, 6)
    book = constriction.symbol.huffman.EncoderHuffmanTree(counts.astype(np.float64))
    theirs = constriction.symbol.StackCoder()
    for symbol in symbols[::-1]:
        theirs.encode_symbol(int(symbol), book)
    their_bits = theirs.get_compressed_and_bitrate()[1]

    ours = 8 * (len(Huffman.encode(symbols, 6)) - Huffman.table_bytes(symbols, 6))

    assert ours <= their_bits + 4 * 8 + 3 * 16  # the padding and sizes of four streams


@pytest.mark.parametrize(("count", "width"), [(2_000, 5), (40_000, 5), (400_000, 5), (400_000, 8)])
def test_rans_codes_as_short_as_constriction_with_the_exact_distribution(count: int, width: int) -> None:
    symbols = bell(count, width)
    chances = histogram(symbols, width) / count
    theirs = constriction.stream.stack.AnsCoder()
    model = constriction.stream.model.Categorical(chances, perfect=False)
    theirs.encode_reverse(symbols.astype(np.int32), model)

    ours = len(Rans.encode(symbols, width)) - Rans.table_bytes(symbols, width)

    assert ours <= 1.005 * 4 * len(theirs.get_compressed()) + 8


@pytest.mark.parametrize("count", [300, 5_000, 40_000])
@pytest.mark.parametrize("width", [5, 8])
def test_tables_stay_small_beside_small_fields(count: int, width: int) -> None:
    symbols = bell(count, width)
    occurring = np.unique(symbols).size
    for coder in (Huffman, Rans):
        assert coder.table_bytes(symbols, width) <= 8 + 3 * occurring / 8


def test_the_adaptive_coder_beats_every_table_on_a_tiny_field() -> None:
    symbols = bell(150, 8)
    assert min(codec.costs(symbols, 8), key=codec.costs(symbols, 8).__getitem__) == "adaptive"


@pytest.mark.parametrize("width", [4, 5, 6])
def test_a_bell_shaped_field_costs_little_more_than_its_entropy(width: int) -> None:
    symbols = bell(300, width)
    learning = (
        (2**width - 1) / (2 * np.log(2)) / 8
    )  # what an unknown distribution of K symbols costs at least
    assert Adaptive.cost_bytes(symbols, width) <= entropy_bytes(symbols) + learning + 6


def test_a_field_of_one_symbol_costs_at_most_three_bytes() -> None:
    for symbol, width in ((0, 1), (0, 16), (31, 5), (200, 8), (65_535, 16)):
        assert len(codec.choose(np.full(100_000, symbol), width).payload) <= 3


@settings(max_examples=40, deadline=None)
@given(fields())
def test_choose_takes_the_cheapest_and_decodes_by_tag(field: tuple[np.ndarray, int]) -> None:
    symbols, width = field
    coded = codec.choose(symbols, width)

    assert len(coded.payload) == min(codec.costs(symbols, width).values())
    assert np.array_equal(codec.decode(coded.tag, coded.payload, symbols.size, width), symbols)


def test_choose_breaks_ties_for_the_faster_decoder() -> None:
    symbols = np.random.default_rng(0).integers(0, 2, 8)
    sizes = codec.costs(symbols, 1)
    assert codec.choose(symbols, 1).tag == next(c.tag for c in CODERS if sizes[c.tag] == min(sizes.values()))


def test_choose_leaves_the_adaptive_coder_out_of_large_fields() -> None:
    assert "adaptive" in codec.costs(np.zeros(Adaptive.LIMIT, np.uint8), 1)
    assert "adaptive" not in codec.costs(np.zeros(Adaptive.LIMIT + 1, np.uint8), 1)


@pytest.mark.parametrize("variant", native.VARIANTS)
@pytest.mark.parametrize("count", [60_000, 60_001, 60_031, 300_000])
@pytest.mark.parametrize("width", [5, 8])
def test_every_cpu_variant_reads_and_writes_the_same_bytes(variant: str, count: int, width: int) -> None:
    symbols = bell(count, width, seed=count)
    try:
        native.use_isa("portable")
        payload = Rans.encode(symbols, width)
        native.use_isa(variant)
        assert Rans.encode(symbols, width) == payload
        assert np.array_equal(Rans.decode(payload, count, width), symbols)
    finally:
        native.use_isa("")


@pytest.mark.parametrize("coder", ALL, ids=lambda coder: coder.tag)
@settings(max_examples=60, deadline=None)
@given(payload=st.binary(max_size=300), count=st.integers(0, 5000), width=st.integers(1, 16))
def test_bytes_no_encoder_wrote_give_symbols_or_a_codec_error(
    coder: type[Coder], payload: bytes, count: int, width: int
) -> None:
    try:
        symbols = coder.decode(payload, count, width)
    except CodecError:
        return
    assert symbols.size == count
    assert count == 0 or int(symbols.max()) < 1 << width


@pytest.mark.parametrize("coder", [Bitpack, Huffman, Rans], ids=lambda coder: coder.tag)
def test_a_cut_or_longer_payload_is_refused(coder: type[Coder]) -> None:
    symbols = bell(200_000, 5)
    payload = coder.encode(symbols, 5)
    for wrong in (payload[:-1], payload[: len(payload) // 2], payload + b"\0"):
        with pytest.raises(CodecError, match=coder.tag):
            coder.decode(wrong, symbols.size, 5)


@pytest.mark.parametrize("coder", ALL, ids=lambda coder: coder.tag)
def test_symbols_that_do_not_fit_are_refused_with_the_remedy(coder: type[Coder]) -> None:
    with pytest.raises(OptionError, match=r"Use 6 bits"):
        coder.encode(np.array([0, 32]), 5)
    with pytest.raises(OptionError, match=r"-1\.\.3"):
        coder.encode(np.array([3, -1]), 5)
    with pytest.raises(OptionError, match="expected integers"):
        coder.encode(np.array([0.5]), 5)
    with pytest.raises(OptionError, match=r"expected 1\.\.16"):
        coder.encode(np.array([0]), 17)


def test_an_unknown_coder_suggests_the_nearest() -> None:
    with pytest.raises(CodecError, match="Did you mean 'huffman'"):
        codec.decode("hufman", b"", 0, 5)


@pytest.mark.parametrize("coder", ALL, ids=lambda coder: coder.tag)
def test_payloads_may_be_any_buffer(coder: type[Coder]) -> None:
    symbols = bell(500, 5)
    payload = coder.encode(symbols, 5)
    for buffer in (bytearray(payload), memoryview(payload), np.frombuffer(payload, np.uint8)):
        assert np.array_equal(coder.decode(buffer, 500, 5), symbols)


def test_bit_packing_puts_the_first_symbol_in_the_lowest_bits() -> None:
    assert Bitpack.encode(np.array([1, 2, 3]), 4) == bytes([0x21, 0x03])
    assert Bitpack.encode(np.array([5, 0, 7, 1]), 3) == bytes([0b11000101, 0b0011])


GOLDEN = {  # payloads of (i^2 div 7) mod 23, i = 0..39, at 5 bits: files of this version must stay readable
    "bitpack": "008020463969b94843494d82b222308d12464bb32812179655",
    "huffman": "09af0e46e79277fb365200684cd96a9145a2fe2196585efc4abc4f7290f505",
    "rans": "ae1d714ff1dc00f458a93d16f0e561005edbf83847e6258fdf68",
    "adaptive": "3ebdeb9da65e3e8df3c701366c0201724b4d0e855e52d1bd8f",
}


def test_payloads_of_this_version_stay_readable() -> None:
    symbols = (np.arange(40) ** 2 // 7) % 23
    for tag, payload in GOLDEN.items():
        assert np.array_equal(codec.decode(tag, bytes.fromhex(payload), 40, 5), symbols)
