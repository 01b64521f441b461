"""The contract of every exported format, and what each one promises of its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gossamer import formats, methods
from gossamer.artifact import layouts
from gossamer.errors import FormatError, OptionError
from gossamer.formats import (
    Binary,
    Codebook,
    Dense,
    MaskedUniform,
    MultiBinary,
    ScaledBinary,
    Sparse,
    Ternary,
    Uniform,
    WeightFormat,
    kmeans,
)
from gossamer.methods import BNN, LSQ, QIL, TTQ, TWN, XNOR, ABCNet, BinaryConnect, BiReal, DoReFa

LEAVES = [
    Dense(),
    Dense(dtype="float16"),
    Dense(dtype="bfloat16"),
    Uniform(bits=2),
    Uniform(bits=8),
    Uniform(bits=4, granularity="channel", fit="mse"),
    Uniform(bits=None, step=0.05),
    Uniform(bits=4, granularity="group", group=4),
    Uniform(bits=4, granularity="group", group=4, scale_dtype="bfloat16"),
    MaskedUniform(bits=8, granularity="channel"),
    MaskedUniform(bits=4, granularity="group", group=4, scale_dtype="float16"),
    LSQ(bits=2),
    LSQ(bits=3, granularity="channel", narrow=True),
    LSQ(bits=4, granularity="group", group=4, fit="max"),
    LSQ(bits=4, granularity="channel", scale_dtype="bfloat16"),
    QIL(bits=2),
    QIL(bits=5, rescale=True),
    DoReFa(bits=1),
    DoReFa(bits=2, rescale=True),
    DoReFa(bits=8),
    Codebook(bits=1),
    Codebook(bits=4),
    Codebook(bits=9, init="density"),
    Binary(),
    Binary(scale="none", slope="identity"),
    Binary(scale="tensor", slope="swish"),
    Ternary(),
    Ternary(granularity="channel", threshold="exact"),
    ScaledBinary(),
    MultiBinary(bases=3),
    MultiBinary(bases=2, granularity="channel"),
    BinaryConnect(),
    BinaryConnect(stochastic=True),
    BinaryConnect(real=True),
    BNN(),
    XNOR(),
    BiReal(),
    TWN(),
    TWN(threshold="exact"),
    TTQ(),
    ABCNet(bases=1),
    ABCNet(bases=5),
]
TREES = [
    *LEAVES,
    Sparse(),
    *(Sparse(values=leaf) for leaf in LEAVES if getattr(leaf, "granularity", "tensor") == "tensor"),
]
KNOWN: dict[str, type[WeightFormat]] = {n: getattr(formats, n) for n in formats.__all__} | {
    n: c
    for n in methods.__all__
    if isinstance(c := getattr(methods, n), type) and issubclass(c, WeightFormat)
}
SHAPES = [(6, 10), (4, 3, 3, 3), (17,), (1, 1)]


def weight(shape: tuple[int, ...], *, seed: int = 0, density: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(shape, generator=generator)
    return dense * (torch.rand(shape, generator=generator) < density)


def named(tree: formats.WeightFormat) -> str:
    return str(tree.to_dict())


def test_every_exported_format_is_in_the_contract() -> None:
    covered = {type(t).__name__ for t in TREES}

    assert covered == set(KNOWN)


@pytest.mark.parametrize("tree", TREES, ids=named)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stored_fields_rebuild_the_trained_weight_bit_for_bit(
    tree: formats.WeightFormat, shape: tuple[int, ...]
) -> None:
    dense = weight(shape, density=0.4 if isinstance(tree, Sparse | MaskedUniform) else 1.0)
    dense.view(-1)[0] = 0.7  # at least one survivor
    parts = tree.encode(dense)

    rebuilt = layouts.rebuild(tree.store(*parts))

    assert rebuilt.dtype == np.float32
    assert np.array_equal(rebuilt, tree.decode(*parts).detach().numpy())


@pytest.mark.parametrize("tree", TREES, ids=named)
def test_gradient_reaches_every_trained_part(tree: formats.WeightFormat) -> None:
    parts = tree.encode(weight((6, 40), density=0.5 if isinstance(tree, Sparse | MaskedUniform) else 1.0))
    trained = tree.trained(*parts)
    leaves = [p.clone().requires_grad_() if t else p for p, t in zip(parts, trained, strict=True)]

    tree.decode(*leaves).square().sum().backward()

    assert any(trained)
    for part, is_trained in zip(leaves, trained, strict=True):
        if is_trained:
            assert part.grad is not None
            assert part.grad.abs().sum() > 0


@pytest.mark.parametrize("tree", TREES, ids=named)
def test_a_format_survives_being_written_as_data(tree: formats.WeightFormat) -> None:
    assert formats.from_dict(tree.to_dict(), KNOWN) == tree


@pytest.mark.parametrize("tree", TREES, ids=named)
def test_a_model_with_a_format_keeps_it_through_state_and_restore(tree: formats.WeightFormat) -> None:
    def fresh() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))

    model = fresh()
    model[0].weight.data = weight((8, 12), density=0.5)
    formats.refine(model, "0.weight", tree)
    model.eval()  # stochastic weights are drawn anew in each forward of training
    x = weight((5, 12), seed=3)

    tensors, trees = formats.state(model)
    again = formats.restore(fresh(), tensors, {k: formats.from_dict(t, KNOWN) for k, t in trees.items()})
    again.eval()

    assert torch.equal(again(x), model(x))
    assert torch.equal(formats.baked(model)(x), model(x))
    assert [n for n, _ in formats.baked(model).named_parameters()] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]


@pytest.mark.parametrize("tree", TREES, ids=named)
def test_nan_weights_are_refused_by_name(tree: formats.WeightFormat) -> None:
    dense = weight((4, 5))
    dense[1, 1] = float("nan")

    with pytest.raises(FormatError, match=r"1 of .* NaN"):
        tree.encode(dense)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Uniform(bits=1),
        lambda: Uniform(bits=None),
        lambda: Uniform(granularity="row"),
        lambda: Uniform(granularity="group", group=0),
        lambda: Uniform(step=-1.0),
        lambda: Uniform(fit="median"),
        lambda: Uniform(scale_dtype="float8"),
        lambda: Codebook(bits=0),
        lambda: Codebook(init="kmeans++"),
        lambda: Dense(dtype="float8"),
        lambda: LSQ(bits=None, step=0.1),
        lambda: LSQ(fit="median"),
        lambda: QIL(bits=1),
        lambda: DoReFa(bits=9),
        lambda: Binary(scale="row"),
        lambda: Binary(slope="relu"),
        lambda: Ternary(granularity="row"),
        lambda: Ternary(threshold="median"),
        lambda: Ternary(ratio=-1.0),
        lambda: MultiBinary(bases=0),
        lambda: MultiBinary(granularity="row"),
        lambda: TTQ(threshold=1.0),
    ],
)
def test_a_wrong_option_says_what_it_received(wrong: object) -> None:
    with pytest.raises(OptionError, match=r"received|unknown|needs a step"):
        wrong()  # type: ignore[operator]


def test_training_never_revives_a_pruned_weight_and_never_leaves_the_codebook() -> None:
    model = nn.Linear(20, 10)
    model.weight.data *= torch.rand(10, 20) < 0.3
    pruned = model.weight.data == 0
    formats.refine(model, "weight", Sparse())
    formats.refine(model, "weight", Codebook(bits=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)

    for _ in range(20):
        optimizer.zero_grad()
        (model(torch.randn(16, 20)) - 1).square().mean().backward()
        optimizer.step()

    assert (model.weight[pruned] == 0).all()
    assert model.weight[~pruned].unique().numel() <= 4


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_a_masked_grid_never_revives_a_pruned_weight_and_keeps_its_rows(granularity: str) -> None:
    model = nn.Linear(20, 10)
    model.weight.data = weight((10, 20), density=0.4) * torch.logspace(-2, 2, 10)[:, None]
    pruned = model.weight.data == 0
    formats.refine(model, "weight", MaskedUniform(bits=4, granularity=granularity, group=5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)

    for _ in range(20):
        optimizer.zero_grad()
        (model(torch.randn(16, 20)) - 1).square().mean().backward()
        optimizer.step()

    assert (model.weight[pruned] == 0).all()
    scale = formats.parts_of(model, "weight")[1]
    assert scale.numel() == {"tensor": 1, "channel": 10, "group": 40}[granularity]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scales_are_rounded_before_codes_are_chosen(dtype: str) -> None:
    dense = weight((6, 64)) / 100
    tree = Uniform(bits=4, granularity="group", group=16, scale_dtype=dtype)
    latent, scale = tree.encode(dense)

    decoded = tree.decode(latent, scale)

    assert torch.equal(scale, scale.to(getattr(torch, dtype)).float())
    assert tree.store(latent, scale).fields["scale"].dtype == dtype  # type: ignore[union-attr]
    steps = scale.repeat_interleave(16).reshape(6, 64)
    assert torch.equal(decoded, (dense / steps).round().clamp(-7, 7) * steps)


def test_scales_that_a_float16_cannot_hold_are_refused() -> None:
    with pytest.raises(FormatError, match="Use bfloat16 or float32"):
        Uniform(bits=4, granularity="channel", scale_dtype="float16").encode(weight((4, 5)) * 1e-9)


def test_the_gradient_of_a_centroid_is_the_sum_over_its_weights() -> None:
    tree = Codebook(bits=3)
    codes, centroids = tree.encode(weight((9, 13)))
    centroids.requires_grad_()
    upstream = weight((9, 13), seed=5)

    tree.decode(codes, centroids).backward(upstream)

    by_hand = [
        sum(float(g) for g, c in zip(upstream.flatten(), codes.flatten(), strict=True) if c == k)
        for k in range(8)
    ]
    assert torch.allclose(centroids.grad, torch.tensor(by_hand), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_uniform_weight_is_within_half_a_step(bits: int, granularity: str) -> None:
    dense = weight((6, 10))
    tree = Uniform(bits=bits, granularity=granularity, fit="max")
    latent, scale = tree.encode(dense)

    error = (tree.decode(latent, scale) - dense).abs()

    assert (error <= scale.reshape(-1, 1) / 2 + 1e-6).all()


@pytest.mark.parametrize(("shape", "group"), [((3, 10), 4), ((2, 3, 2, 2), 5), ((4, 6), 6), ((2, 5), 32)])
def test_a_group_of_inputs_has_the_scale_of_its_own_largest_weight(
    shape: tuple[int, ...], group: int
) -> None:
    dense = weight(shape)
    tree = Uniform(bits=4, granularity="group", group=group)
    parts = tree.encode(dense)
    rows = dense.reshape(shape[0], -1)

    decoded = tree.decode(*parts).reshape(rows.shape)

    starts = range(0, rows.shape[1], group)
    assert parts[1].numel() == shape[0] * len(starts)
    for o in range(shape[0]):
        for start in starts:
            values = rows[o, start : start + group]
            step = values.abs().max() / 7
            assert torch.allclose(decoded[o, start : start + group], (values / step).round() * step)


def test_a_group_is_stored_as_an_option_only_where_rows_hold_several() -> None:
    dense = weight((4, 10))

    def options(group: int) -> object:
        tree = Uniform(bits=4, granularity="group", group=group)
        return tree.store(*tree.encode(dense)).options

    assert options(4) == {"offset": 7, "group": 4}
    assert options(10) == options(64) == {"offset": 7}


def test_smaller_groups_follow_outliers_better() -> None:
    dense = weight((16, 64))
    dense[:, 5] *= 20

    def error(**options: object) -> float:
        tree = Uniform(bits=4, **options)  # type: ignore[arg-type]
        return float((tree.decode(*tree.encode(dense)) - dense).square().mean())

    channel = error(granularity="channel")
    grouped = [error(granularity="group", group=g) for g in (32, 16, 8)]

    assert channel > grouped[0] > grouped[1] > grouped[2]


@pytest.mark.parametrize("init", kmeans.INITS)
def test_kmeans_reaches_a_fixed_point_of_lloyd(init: str) -> None:
    weights = weight((400,)).numpy().astype(np.float64)

    centroids = kmeans.kmeans(weights, 6, init=init, iterations=1000)

    nearest = np.abs(weights[:, None] - centroids).argmin(axis=1)
    for k in set(nearest):
        assert centroids[k] == pytest.approx(weights[nearest == k].mean())


def test_optimal_kmeans_is_the_best_of_all_partitions() -> None:
    weights = np.sort(weight((11,)).numpy().astype(np.float64))

    def error(cuts: tuple[int, ...]) -> float:
        groups = np.split(weights, cuts)
        return sum(float(((g - g.mean()) ** 2).sum()) for g in groups)

    best = min(error(cuts) for cuts in itertools.combinations(range(1, 11), 3))
    centroids = kmeans.kmeans(weights, 4, init="optimal")
    ours = float(((weights - centroids[kmeans.assign(weights, centroids)]) ** 2).sum())

    assert ours == pytest.approx(best)


def test_linear_initialization_keeps_the_largest_weights() -> None:
    weights = np.concatenate([weight((2000,)).numpy() * 0.05, [1.0, -1.0]])

    linear = kmeans.kmeans(weights, 8, init="linear")

    assert (linear.min(), linear.max()) == (-1.0, 1.0)


def test_a_pruned_grid_of_codes_is_never_larger_than_its_positions() -> None:
    dense = weight((64, 64), density=0.8)
    parts = Sparse(values=Uniform(bits=3)).encode(dense)

    stored = Sparse(values=Uniform(bits=3)).store(*parts)

    assert stored.layout == "uniform"  # at 80 % the zeros are cheaper inside the grid than as positions
