"""ResNet-20: channels, then weights, then shared values or integers in one recipe; every property holds in the packed file."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

import gossamer as gs
from gossamer import artifact, formats, measure
from gossamer.data import load_data
from gossamer.models import load_model
from gossamer.steps import Calibrate, FreezeNorms, Prune, PruneChannels, Quantize, Share, Step

pytestmark = pytest.mark.slow
EXAMPLE = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return load_model("resnet20", "resnet20_cifar10").eval()


@pytest.fixture(scope="module")
def cifar():
    return load_data("cifar10")


def drawn(seed: int) -> tuple[PruneChannels, Prune, Share | Quantize]:
    """A recipe of three steps whose options follow from the seed; its last step from the seed's parity."""
    random = np.random.default_rng(seed)
    inner = ("conv1",) if random.random() < 0.5 else ()
    share, multiple = float(random.uniform(0.4, 0.7)), int(random.choice([1, 2, 8]))
    channels = PruneChannels(
        macs=share, skip=inner, round_to=multiple, scope=str(random.choice(["global", "layer"]))
    )
    prune = Prune(sparsity=float(random.uniform(0.3, 0.9)))
    grid = str(random.choice(["tensor", "channel"]))
    last = Quantize(bits=8, granularity=grid) if seed % 2 else Share(bits=int(random.choice([3, 4, 5])))
    return channels, prune, last


def packed(network, steps: list[Step], path, data=None):
    """The network after the steps and the bytes of its file."""
    norms = 1 if isinstance(steps[0], PruneChannels) else 0  # channels are cut while there are norms
    model = gs.apply(copy.deepcopy(network), [*steps[:norms], FreezeNorms(), *steps[norms:]], data, EXAMPLE)
    gs.pack(model, path, EXAMPLE)
    return model, path.stat().st_size


def stored_weights(path) -> dict[str, artifact.Tensor]:
    with artifact.Reader(path) as reader:
        return {t.name: t for t in reader.tensors() if len(t.stored.shape) > 1}


@pytest.mark.parametrize("seed", range(6))
def test_every_property_of_every_step_holds_in_the_file_and_no_single_step_makes_one_as_small(
    seed, network, tmp_path
):
    channels, prune, last = drawn(seed)
    singles = [packed(network, [step], tmp_path / "single.goss")[1] for step in (channels, prune, last)]
    narrow, _ = packed(network, [channels], tmp_path / "narrow.goss")

    model, size = packed(network, [channels, prune, last], tmp_path / "model.goss")

    tensors = stored_weights(tmp_path / "model.goss")
    widths = {name: tuple(p.shape) for name, p in narrow.named_parameters() if p.dim() > 1}
    dense = {name: artifact.layouts.rebuild(tensor.stored) for name, tensor in tensors.items()}
    assert {name: values.shape for name, values in dense.items()} == widths
    limit = channels.macs * measure.profile(network, EXAMPLE).macs
    assert measure.profile(model, EXAMPLE).macs <= limit
    for name, values in dense.items():
        zeros, asked = int((values == 0).sum()), math.floor(prune.sparsity * values.size + 1e-9)
        assert zeros >= asked, name
        if isinstance(last, Share):
            shared = values.size > 2**last.bits  # a smaller layer has nothing to share
            assert len(np.unique(values[values != 0])) <= (2**last.bits if shared else values.size), name
        else:
            assert_integers(tensors[name], values, rows=last.granularity == "channel")
    received = gs.open(tmp_path / "model.goss")(EXAMPLE.numpy())
    expected = model(EXAMPLE).detach().numpy()
    assert np.abs(received - expected).max() <= 1e-4 * np.abs(expected).max()
    assert size < min(singles)


def assert_integers(tensor: artifact.Tensor, values: np.ndarray, *, rows: bool) -> None:
    """Every value is a whole number of at most 8 bits, with its sign, times the scale of its row."""
    node = next(node for _, node in tensor.stored.walk() if node.layout == "uniform")
    scale = np.asarray(node.fields["scale"].values, np.float64).reshape(-1, 1)
    assert len(scale) == (len(values) if rows else 1), tensor.name
    codes = values.reshape(len(values), -1) / scale
    assert np.abs(codes - codes.round()).max() <= 1e-4
    assert np.abs(codes).max() <= 128


def test_on_integers_the_cut_and_pruned_network_computes_what_torch_simulates(network, cifar, tmp_path):
    channels, prune, _ = drawn(1)
    integers = [Calibrate(samples=64), Quantize(bits=8, granularity="channel", fit="max")]
    floats, larger = packed(network, [channels, prune], tmp_path / "floats.goss")
    widths = {name: p.shape for name, p in formats.plain_parameters(floats).items()}

    model, size = packed(network, [channels, prune, *integers], tmp_path / "model.goss", cifar)

    pictures = torch.from_numpy(cifar.batch(64))
    received = gs.open(tmp_path / "model.goss")(pictures.numpy())
    expected = model(pictures).detach().numpy()
    for name, tensor in stored_weights(tmp_path / "model.goss").items():
        values = artifact.layouts.rebuild(tensor.stored)
        assert values.shape == widths[name]
        assert int((values == 0).sum()) >= math.floor(prune.sparsity * values.size + 1e-9)
        assert np.abs(values).max() <= 128
        assert np.array_equal(values, values.round())
    # a sum that lies on a tie rounds one step the other way, and later layers carry it on
    assert np.abs(received - expected).max() <= 0.02 * np.abs(expected).max()
    assert size < larger
