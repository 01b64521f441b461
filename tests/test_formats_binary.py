"""Weights of one and two bits: closed forms, brute force and the gradients of the papers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from gossamer.artifact import layouts
from gossamer.errors import OptionError
from gossamer.formats.binary import Binary, glorot
from gossamer.formats.multi_binary import MultiBinary
from gossamer.formats.scaled_binary import ScaledBinary
from gossamer.formats.straight_through import SLOPES, sign
from gossamer.formats.ternary import Ternary


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TREES = [
    *(Binary(scale=scale) for scale in ("none", "glorot", "tensor", "channel")),
    *(Ternary(granularity=g, threshold=t) for g in ("tensor", "channel") for t in ("ratio", "exact")),
    *(MultiBinary(bases=m, granularity=g) for m in (1, 2, 3, 5) for g in ("tensor", "channel")),
    ScaledBinary(slope="swish"),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: str(tree.to_dict()))
@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 3, 3), (17,), (1, 1), (5, 1)], ids=str)
def test_stored_fields_rebuild_the_trained_weight_bit_for_bit(tree, shape):
    parts = tree.encode(normal(*shape))

    rebuilt = layouts.rebuild(tree.store(*parts))

    assert np.array_equal(rebuilt, tree.decode(*parts).detach().numpy())


@pytest.mark.parametrize("slope", SLOPES)
def test_sign_has_two_values_and_zero_is_positive(slope):
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, -1e-30])

    assert sign(x, slope).tolist() == [-1, 1, 1, 1, -1]


@pytest.mark.parametrize(
    ("slope", "expected"),
    [
        ("identity", lambda x: 1.0),
        ("clipped", lambda x: float(abs(x) <= 1)),
        ("approx", lambda x: max(0.0, 2 - 2 * abs(x))),
        ("swish", lambda x: 5 * (2 - 5 * x * math.tanh(2.5 * x)) / (1 + math.cosh(5 * x))),
    ],
)
def test_slopes_are_those_of_the_papers(slope, expected):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)

    sign(x, slope).sum().backward()

    assert x.grad.tolist() == pytest.approx([expected(v) for v in x.tolist()], abs=1e-12)


def test_swish_sign_is_the_derivative_of_the_function_it_is_named_after():
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64, requires_grad=True)
    sign(x, "swish").sum().backward()
    smooth = x.detach().clone().requires_grad_(True)
    b = 5 * smooth

    (2 * torch.sigmoid(b) * (1 + b * (1 - torch.sigmoid(b))) - 1).sum().backward()

    assert torch.allclose(x.grad, smooth.grad, atol=1e-12)


def test_the_channel_scale_is_the_least_squares_scale_of_the_best_signs():
    dense = normal(3, 6).double()

    weight = Binary(scale="channel").decode(dense)

    for row, found in zip(dense, weight, strict=True):
        best = min(
            float((row - a * torch.tensor(signs)).square().sum())
            for signs in itertools.product((-1.0, 1.0), repeat=6)
            for a in [float(row @ torch.tensor(signs, dtype=torch.float64)) / 6]
        )
        assert float((row - found).square().sum()) == pytest.approx(best)


def test_glorot_scale_is_that_of_binary_connect():
    assert glorot(torch.Size([1024, 784])) == pytest.approx(0.5 * math.sqrt(6 / (784 + 1024)))
    assert glorot(torch.Size([256, 128, 3, 3])) == pytest.approx(math.sqrt(1.5 / ((128 + 256) * 9)))


def test_the_gradient_of_a_scaled_sign_is_the_exact_derivative_with_a_clipped_sign():
    latent = (1.5 * normal(2, 5)).requires_grad_(True)
    upstream = normal(2, 5, seed=1)

    (Binary(scale="channel").decode(latent) * upstream).sum().backward()

    w, scale = latent.detach(), latent.detach().abs().mean(dim=1, keepdim=True)
    signs = torch.where(w >= 0, 1.0, -1.0)
    by_hand = upstream * scale * (w.abs() <= 1) + signs * (upstream * signs).sum(dim=1, keepdim=True) / 5
    assert torch.allclose(latent.grad, by_hand, atol=1e-6)


@pytest.mark.parametrize(("draw", "best"), [(torch.randn, 0.75), (torch.rand, 2 / 3)])
def test_the_exact_threshold_approaches_the_published_multiple_of_the_mean(draw, best):
    dense = draw(1, 400_000, generator=torch.Generator().manual_seed(0))

    codes, _ = Ternary(threshold="exact").codes(dense)

    threshold = float(dense.abs()[codes == 0].max())
    assert threshold / float(dense.abs().mean()) == pytest.approx(best, abs=0.02)


def test_the_exact_threshold_is_that_of_brute_force():
    dense = normal(9, seed=3)

    error = float((Ternary(threshold="exact").decode(dense) - dense).square().sum())

    def brute(codes: tuple[int, ...]) -> float:
        t = torch.tensor(codes, dtype=torch.float32)
        scale = float(dense @ t) / max(float(t @ t), 1)
        return float((dense - scale * t).square().sum())

    assert error == pytest.approx(min(map(brute, itertools.product((-1, 0, 1), repeat=9))), abs=1e-5)


def test_ternary_scales_are_means_of_what_stays():
    dense = torch.tensor([[4.0, -2.0, 0.1, 0.2], [1.0, 1.0, -1.0, 0.0]])

    weight = Ternary(granularity="channel").decode(dense)

    assert weight.tolist() == [[3, -3, 0, 0], [1, 1, -1, 0]]


@pytest.mark.parametrize("tree", TREES[4:8], ids=lambda tree: str(tree.to_dict()))
def test_zeros_stay_zero_and_a_tensor_of_zeros_is_ternary_too(tree):
    dense = normal(4, 8)
    dense[:, ::2] = 0

    assert bool((tree.decode(dense)[:, ::2] == 0).all())
    assert bool((tree.decode(torch.zeros(3, 5)) == 0).all())


@pytest.mark.parametrize(("bases", "published"), [(1, 0.60), (2, 0.52), (3, 0.35), (5, 0.28)])
def test_more_bases_leave_the_published_error_of_gaussian_weights(bases, published):
    dense = normal(200_000)

    error = float((MultiBinary(bases=bases).decode(dense) - dense).norm() / dense.norm())

    assert error == pytest.approx(published, abs=0.01)


def test_scales_of_bases_are_the_least_squares_solution():
    dense = normal(6, 50)
    negative, scale = MultiBinary(bases=3, granularity="channel").fitted(dense)

    for o in range(6):
        bases = (1 - 2 * negative[:, o].double()).numpy().T
        expected = np.linalg.lstsq(bases, dense[o].double().numpy(), rcond=None)[0]
        assert scale[:, o].numpy() == pytest.approx(expected, abs=1e-4)


def test_the_gradient_of_bases_is_multiplied_by_the_sum_of_their_scales():
    latent = normal(4, 30).requires_grad_(True)
    tree = MultiBinary(bases=3)

    (tree.decode(latent) * normal(4, 30, seed=1)).sum().backward()

    assert torch.allclose(latent.grad, normal(4, 30, seed=1) * tree.fitted(latent)[1].sum(), atol=1e-6)


def test_equal_weights_do_not_break_the_solver():
    assert bool(MultiBinary(bases=5).decode(torch.full((2, 3), 0.25)).isfinite().all())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Binary(scale="row"),
        lambda: Binary(slope="tanh"),
        lambda: Ternary(granularity="group"),
        lambda: Ternary(threshold="max"),
        lambda: Ternary(ratio=-1),
        lambda: MultiBinary(bases=0),
        lambda: MultiBinary(granularity="layer"),
        lambda: sign(torch.zeros(1), "relu"),
    ],
)
def test_wrong_options_are_refused(make):
    with pytest.raises(OptionError):
        make()
