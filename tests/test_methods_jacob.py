"""Fixed-point arithmetic: bit for bit what gemmlowp and TensorFlow Lite compute, checked with Python's own integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from gossamer.errors import OptionError
from gossamer.methods.jacob import float_multiplier
from gossamer.methods.jacob.fixed_point import (
    INT32_MAX,
    INT32_MIN,
    activation_range,
    add,
    mean,
    quantize_multiplier,
    rdbp,
    requantize,
    rescale,
    round_half_away,
    srdhm,
)
from gossamer.methods.jacob.operators import multiply
from gossamer.quantizers import Grid

EDGES = [0, 1, -1, 2, -2, 3, -3, 2**15, -(2**15), 2**30, -(2**30), 2**30 + 1, INT32_MAX, INT32_MAX - 1]
EDGES += [INT32_MIN, INT32_MIN + 1, 2**29 - 1, -(2**29) - 1, 0x55555555, -0x55555555]


def int32s(count: int, seed: int = 0) -> list[int]:
    """Edges first, then values of all magnitudes."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(INT32_MIN, INT32_MAX, count, dtype=np.int64, endpoint=True)
    return [*EDGES, *(wide >> rng.integers(0, 32, count)).tolist()]


def half_away(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    size = math.floor(abs(value) + Fraction(1, 2))
    return size if value >= 0 else -size


def truncated(a: int, b: int) -> int:
    """a / b as C divides integers."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def lite(acc: int, real: float) -> int:
    """acc times `real` with the scalar steps of TensorFlow Lite, in Python integers."""
    fraction, shift = math.frexp(real)
    mantissa = half_away(Fraction(fraction) * 2**31)
    if mantissa == 2**31:
        mantissa, shift = 2**30, shift + 1
    if shift < -31:
        mantissa, shift = 0, 0
    product = (acc << max(shift, 0)) * mantissa
    high = truncated(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def test_high_multiply_equals_the_form_with_a_nudge_by_sign_and_truncating_division():
    pairs = [(a, b) for a in EDGES for b in EDGES] + list(
        zip(int32s(20000, 1), int32s(20000, 2), strict=True)
    )

    ours = srdhm([a for a, _ in pairs], [b for _, b in pairs])

    for (a, b), value in zip(pairs, ours.tolist(), strict=True):
        nudge = 2**30 if a * b >= 0 else 1 - 2**30
        gemmlowp = INT32_MAX if a == b == INT32_MIN else truncated(a * b + nudge, 2**31)
        arm = min((2 * a * b + 2**31) >> 32, INT32_MAX)  # SQRDMULH
        assert value == gemmlowp == arm


def test_high_multiply_saturates_only_at_the_square_of_the_smallest_integer():
    assert srdhm(INT32_MIN, INT32_MIN) == INT32_MAX
    assert srdhm(INT32_MIN, INT32_MAX) == -INT32_MAX
    assert srdhm(INT32_MAX, INT32_MAX) == INT32_MAX - 1
    assert srdhm(1, 2**30) == 1  # a half rounds up
    assert srdhm(-1, 2**30) == 0  # also below zero


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 30, 31])
def test_dividing_by_a_power_of_two_rounds_halves_away_from_zero(exponent):
    values = [*range(-300, 301), *int32s(3000)]

    ours = rdbp(values, exponent)

    assert ours.tolist() == [half_away(Fraction(value, 2**exponent)) for value in values]


@pytest.mark.parametrize(
    ("real", "mantissa", "shift"),
    [
        (0.25, 1073741824, -1),
        (0.5 - 5e-9, 2147483627, -1),
        (0.5 - 1e-10, 1073741824, 0),
        (0.5, 1073741824, 0),
        (0.75, 1610612736, 0),
        (1 - 1e-9, 2147483646, 0),
        (1 + 1e-11, 1073741824, 1),
        (1.25, 1342177280, 1),
        (1.75, 1879048192, 1),
        (2 - 1e-9, 2147483647, 1),
        (2 - 1e-11, 1073741824, 2),
        (4.0, 1073741824, 3),
        (2.0**-31, 1073741824, -30),
        (2.0**-32, 1073741824, -31),
        (0.99 * 2.0**-32, 0, 0),
        (2.0**-33, 0, 0),
        (0.0, 0, 0),
    ],
)
def test_multipliers_are_those_of_the_tests_of_tensorflow_lite(real, mantissa, shift):
    assert [int(part) for part in quantize_multiplier(real)] == [mantissa, shift]


def test_a_multiplier_is_exact_to_31_bits():
    real = 2.0 ** np.random.default_rng(0).uniform(-31.9, 29.9, 5000)

    mantissa, shift = quantize_multiplier(real)

    assert ((mantissa >= 2**30) & (mantissa < 2**31)).all()
    for m, e, r in zip(mantissa.tolist(), shift.tolist(), real.tolist(), strict=True):
        assert abs(Fraction(m) * Fraction(2) ** (e - 31) - Fraction(r)) <= Fraction(2) ** (e - 32)


@pytest.mark.parametrize("real", [-0.1, math.nan, math.inf, 2.0**30])
def test_a_multiplier_that_no_scales_give_is_refused(real):
    with pytest.raises(OptionError, match="expected 0 <= S1 S2 / S3 < 2"):
        quantize_multiplier([0.5, real])


@pytest.mark.parametrize(
    ("acc", "real", "expected"),
    [
        (0, 0.1, 0),
        (1, 0.0, 0),
        (10000, 0.00097656, 10),
        (-10000, 0.00097656, -10),
        (INT32_MIN, 0.00001, -21475),
        (INT32_MAX, 0.00001, 21475),
    ],
)
def test_requantizing_gives_the_numbers_of_the_tests_of_tensorflow_lite(acc, real, expected):
    for rounding in ("double", "single"):
        assert requantize(acc, *quantize_multiplier(real), rounding=rounding) == expected


@pytest.mark.parametrize("exponents", [(-31.5, -20), (-20, -8), (-8, 0), (0, 8)])
def test_requantizing_equals_the_scalar_steps(exponents):
    rng = np.random.default_rng(0)
    real = 2.0 ** rng.uniform(*exponents, 4000)
    acc = rng.integers(-(2**22), 2**22, 4000)

    ours = requantize(acc, *quantize_multiplier(real))

    assert ours.tolist() == [lite(a, r) for a, r in zip(acc.tolist(), real.tolist(), strict=True)]


def test_single_rounding_is_the_nearest_integer_and_double_rounding_at_most_one_away():
    rng = np.random.default_rng(0)
    mantissa, shift = quantize_multiplier(2.0 ** rng.uniform(-20, 4, 4000))
    acc = rng.integers(-(2**24), 2**24, 4000)

    once = requantize(acc, mantissa, shift, rounding="single")
    twice = requantize(acc, mantissa, shift)

    exact = [
        Fraction(a * m) * Fraction(2) ** (e - 31)
        for a, m, e in zip(acc.tolist(), mantissa.tolist(), shift.tolist(), strict=True)
    ]
    assert once.tolist() == [math.floor(value + Fraction(1, 2)) for value in exact]
    assert np.abs(twice - once).max() <= 1


def test_the_two_roundings_differ_in_under_one_percent_of_usual_layers():
    rng = np.random.default_rng(0)
    multiplier = quantize_multiplier(rng.uniform(1e-4, 1e-2, 200_000))
    acc = rng.integers(-30_000, 30_000, 200_000)

    apart = requantize(acc, *multiplier) - requantize(acc, *multiplier, rounding="single")

    assert 0.002 < (apart != 0).mean() < 0.006


def test_multipliers_of_one_and_more_shift_left_first():
    assert requantize([3, -3], *quantize_multiplier(1.0)).tolist() == [3, -3]
    assert requantize([3, -3], *quantize_multiplier(1.5)).tolist() == [
        5,
        -4,
    ]  # 4.5: the first rounding goes up
    assert requantize([3, -3], *quantize_multiplier(1000.0)).tolist() == [3000, -3000]


def test_a_left_shift_that_leaves_32_bits_saturates():
    ours = requantize([2**28, -(2**28)], *quantize_multiplier(2.0**20))

    assert (np.sign(ours) == [1, -1]).all()
    assert (np.abs(ours) >= 2**29).all()


def test_an_unknown_rounding_is_refused():
    with pytest.raises(OptionError, match="'double' or 'single'"):
        requantize(1, 2**30, 0, rounding="nearest")  # type: ignore[arg-type]


def test_half_away_is_exact_next_to_a_half():
    below = np.nextafter(0.5, 0)

    assert round_half_away([0.5, -0.5, below, -below, 2.5, -2.5, 1e9 + 0.5]).tolist() == [
        *(1, -1, 0, 0, 3, -3, 1_000_000_001),
    ]


@pytest.mark.parametrize(
    ("grid", "low", "high", "expected"),
    [
        (Grid(0.1, 0, 0, 255), 0.0, math.inf, (0, 255)),
        (Grid(0.1, 128, 0, 255), 0.0, math.inf, (128, 255)),
        (Grid(0.1, -3, -128, 127), 0.0, 6.0, (-3, 57)),
        (Grid(0.05, 10, 0, 255), 0.0, 6.0, (10, 130)),
        (Grid(0.01, 10, 0, 255), 0.0, 6.0, (10, 255)),
        (Grid(4.0, 0, 0, 255), 0.0, 6.0, (0, 2)),  # 1.5 rounds away from zero
        (Grid(0.1, 7, 0, 255), -math.inf, math.inf, (0, 255)),
        (Grid(1e-9, 0, -128, 127), -1e9, 1e9, (-128, 127)),
        (Grid(0.1, 0, 0, 255), 30.0, 40.0, (255, 255)),
    ],
)
def test_a_fused_activation_is_a_clamp_of_codes(grid, low, high, expected):
    assert activation_range(grid, low, high) == expected


def test_a_residual_add_equals_the_scalar_steps_and_is_within_one_of_the_real_sum():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 3000))
    first, second, target = Grid(0.031, 12, 0, 255), Grid(0.0074, 130, 0, 255), Grid(0.027, 40, 0, 255)

    ours = add(left, right, first, second, target)

    common = 2 * max(first.scale, second.scale)
    for a, b, value in zip(left.tolist(), right.tolist(), ours.tolist(), strict=True):
        scaled = (lite((q - g.zero_point) << 20, g.scale / common) for q, g in ((a, first), (b, second)))
        assert value == lite(sum(scaled), common / 2**20 / target.scale) + target.zero_point
        real = (a - 12) * 0.031 + (b - 130) * 0.0074
        assert abs((value - 40) * 0.027 - real) <= 0.027 * (0.5 + 1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_float_multipliers_give_the_nearest_integer_except_next_to_a_half(seed):
    rng = np.random.default_rng(seed)
    acc, scale = rng.integers(-(2**20), 2**20, 3000), np.float64(np.float32(0.0207)) * np.float32(0.0031)
    left, right = rng.integers(0, 256, (2, 3000))
    first, second, target = (
        Grid(float(np.float32(s)), z, 0, 255) for s, z in ((0.031, 12), (0.0074, 130), (0.027, 40))
    )

    ours = {
        "requantize": float_multiplier.requantize(acc, scale, first.scale),
        "rescale": float_multiplier.rescale(left, first, target) - 40,
        "add": float_multiplier.add(left, right, first, second, target) - 40,
        "mean": float_multiplier.mean(49 * left + 7, 49, first, target) - 40,
    }

    values = (left - 12) * first.scale
    real = {
        "requantize": acc * scale / first.scale,
        "rescale": values / target.scale,
        "add": (values + (right - 130) * second.scale) / target.scale,
        "mean": (values + first.scale / 7) / target.scale,
    }
    for name, codes in ours.items():
        assert (np.abs(codes - real[name]) <= 0.5 + 3e-7 * np.abs(real[name]) + 1e-5).all(), name


def test_inputs_of_a_concatenation_move_to_the_grid_of_the_result():
    codes = np.arange(256)
    source, target = Grid(0.031, 12, 0, 255), Grid(0.027, 40, 0, 255)

    moved = rescale(codes, source, target)

    assert (rescale(codes, source, source) == codes).all()
    assert np.abs((moved - 40) * 0.027 - (codes - 12) * 0.031).max() <= 0.027 * (0.5 + 1e-4)
    assert moved[12] == 40  # zero stays zero


def test_the_mean_of_integers_rounds_halves_away_from_zero():
    for count in [*range(1, 13), 49, 64]:
        totals = range(-300, 301)

        ours = mean(list(totals), count)

        lite_form = [truncated(t + count // 2 if t > 0 else t - count // 2, count) for t in totals]
        assert ours.tolist() == lite_form == [half_away(Fraction(t, count)) for t in totals]


def test_zero_points_leave_the_product_as_four_terms():
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (7, 11)), rng.integers(-128, 128, (11, 5))
    zeros = rng.integers(-10, 10, 5)

    split = multiply(x, w, 77, zeros)

    assert (split == (x - 77) @ (w - zeros)).all()
    assert (multiply(x, w, 77, np.zeros(1, np.int64)) == (x - 77) @ w).all()
