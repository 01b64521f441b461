"""Gaps: positions of sparse entries, our form and the paper's, against plain Python and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import codec
from gossamer.codec import gaps
from gossamer.errors import CodecError, OptionError


def plain_encode(positions: np.ndarray, width: int) -> list[int]:
    escape, at, symbols = (1 << width) - 1, 0, []
    for position in positions.tolist():
        while position - at >= escape:
            symbols.append(escape)
            at += escape
        symbols.append(position - at)
        at = position + 1
    return symbols


@st.composite
def sparse(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    total = draw(st.integers(0, 5000))
    density = draw(st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.9, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.flatnonzero(rng.random(total) < density), total


@settings(max_examples=100, deadline=None)
@given(sparse(), st.integers(1, 16))
def test_gap_symbols_equal_the_definition_and_come_back(field: tuple[np.ndarray, int], width: int) -> None:
    positions, total = field
    symbols = gaps.encode(positions, total, width)

    assert symbols.tolist() == plain_encode(positions, width)
    assert np.array_equal(gaps.decode(symbols, width, positions.size, total), positions)


@settings(max_examples=100, deadline=None)
@given(sparse(), st.integers(1, 16))
def test_the_paper_s_relative_index_comes_back(field: tuple[np.ndarray, int], bits: int) -> None:
    positions, _ = field
    z, is_padding = gaps.relative_index(positions, bits)

    assert (z < 1 << bits).all()
    assert (z[is_padding] == (1 << bits) - 1).all()
    assert (~is_padding).sum() == positions.size
    assert np.array_equal(gaps.from_relative_index(z, is_padding), positions)


def test_the_relative_index_of_eie_s_example_column() -> None:
    column = np.array([0, 0, 1, 2, *[0] * 18, 3])  # EIE, section 3: v = 1 2 0 3, z = 2 0 15 2
    z, is_padding = gaps.relative_index(np.flatnonzero(column), 4)
    assert z.tolist() == [2, 0, 15, 2]
    assert is_padding.tolist() == [False, False, True, False]


@pytest.mark.parametrize(("density", "bits"), [(0.09, 4), (0.04, 5), (0.04, 4), (0.11, 5)])
def test_paddings_follow_the_formula(density: float, bits: int) -> None:
    positions = np.flatnonzero(np.random.default_rng(0).random(2_000_000) < density)
    paddings = gaps.relative_index(positions, bits)[1].mean()

    q = (1 - density) ** (1 << bits)
    per_entry = q / (1 - q)

    assert paddings / (1 - paddings) == pytest.approx(per_entry, rel=0.02)


def test_padding_figures_of_the_deep_compression_tables() -> None:
    for density, bits, printed in ((0.09, 4, 0.28), (0.04, 5, 0.37), (0.04, 4, 1.08)):
        q = (1 - density) ** (1 << bits)
        assert q / (1 - q) == pytest.approx(printed, abs=0.006)


@pytest.mark.parametrize("density", [0.02, 0.08, 0.3])
def test_the_best_width_is_within_a_percent_of_trying_all(density: float) -> None:
    total = 60_000
    positions = np.flatnonzero(np.random.default_rng(1).random(total) < density)
    sizes = {w: min(codec.costs(gaps.encode(positions, total, w), w).values()) for w in range(1, 13)}
    assert sizes[gaps.best_width(positions, total)] <= 1.01 * min(sizes.values())


def test_the_best_width_of_many_entries_needs_no_trial() -> None:
    total = 20_000_000
    positions = np.flatnonzero(np.random.default_rng(2).random(total, np.float32) < 0.11)
    width = gaps.best_width(positions, total)
    size = len(codec.Rans.encode(gaps.encode(positions, total, width), width))
    entropy_bytes = total * -(0.11 * np.log2(0.11) + 0.89 * np.log2(0.89)) / 8
    assert width <= 8
    assert size <= 1.005 * entropy_bytes


def test_no_entries_and_all_entries_work() -> None:
    assert gaps.encode(np.zeros(0, np.int64), 9, 4).size == 0
    assert gaps.decode(np.zeros(0, np.uint16), 4, 0, 9).size == 0
    assert gaps.best_width(np.zeros(0, np.int64), 9) == 1
    assert gaps.encode(np.arange(5), 5, 3).tolist() == [0] * 5


@pytest.mark.parametrize(
    "positions", [[3, 2], [2, 2], [-1, 4], [4, 10]], ids=["unsorted", "repeated", "negative", "outside"]
)
def test_positions_no_sparse_array_has_are_refused(positions: list[int]) -> None:
    with pytest.raises(OptionError, match=r"sorted, distinct and in 0\.\.9"):
        gaps.encode(np.array(positions), 10, 4)
    if positions != [4, 10]:
        with pytest.raises(OptionError, match="sorted, distinct"):
            gaps.relative_index(np.array(positions), 4)


def test_symbols_that_leave_the_array_are_refused() -> None:
    symbols = gaps.encode(np.array([0, 9]), 10, 4)
    with pytest.raises(CodecError, match="beyond its limit"):
        gaps.decode(symbols, 4, 2, 9)
    with pytest.raises(CodecError, match="beyond its limit"):
        gaps.decode(np.array([16], np.uint16), 4, 1, 100)
    with pytest.raises(CodecError, match="hold 2 entries, expected 3"):
        gaps.decode(symbols, 4, 3, 10)
    with pytest.raises(CodecError, match="beyond its limit"):
        codec.scatter(symbols, 4, np.ones(2), 9)
    with pytest.raises(CodecError, match="bytes are left"):
        codec.scatter(symbols, 4, np.ones(3), 10)


@settings(max_examples=60, deadline=None)
@given(sparse(), st.integers(1, 16))
def test_scatter_equals_numpy(field: tuple[np.ndarray, int], width: int) -> None:
    positions, total = field
    values = np.random.default_rng(0).standard_normal(positions.size).astype(np.float32)
    expected = np.zeros(total, np.float32)
    expected[positions] = values

    assert np.array_equal(codec.scatter(gaps.encode(positions, total, width), width, values, total), expected)


@pytest.mark.parametrize("size", [1, 16, 17, 32, 33, 256, 300, 65_536])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 33, 1000])
def test_lookup_equals_numpy(size: int, count: int) -> None:
    rng = np.random.default_rng(size)
    centroids = rng.standard_normal(size).astype(np.float32)
    codes = rng.integers(0, size, (count, 1)).astype(np.uint8 if size <= 256 else np.uint16)

    assert np.array_equal(codec.lookup(codes, centroids), centroids[codes])


def test_a_code_without_a_centroid_is_refused() -> None:
    with pytest.raises(CodecError, match="4 codes for 3 centroids"):
        codec.lookup(np.array([0, 1, 2, 3], np.uint8), np.zeros(3))
