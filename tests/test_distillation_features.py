"""Feature targets equal the formula written out, train a cut network nearer to its teacher, and leave no hooks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer.data.custom import as_data
from gossamer.distillation import FeatureTargets, SoftTargets
from gossamer.errors import ModelError, OptionError
from gossamer.training import fit


def network(seed=0, hidden=12):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 5)), nn.ReLU(), nn.Linear(5, 2)
    )


def halves(count=256):
    x = np.random.default_rng(0).normal(size=(count, 6)).astype(np.float32)
    split = (x, (x[:, 0] > 0).astype(np.int64))
    return as_data({"train": split, "validation": split, "test": split}, name="halves")


def test_the_loss_is_the_sum_written_out():
    teacher, student = network(0), network(1).train()
    x, labels = torch.randn(8, 6), torch.zeros(8, dtype=torch.long)
    base = SoftTargets(teacher)
    loss = FeatureTargets(base, ["0", "0.?"], weight=0.5)

    with loss.watching(student):
        value = loss(student(x), labels, x, student)

    expected = float(base(student(x), labels, x, student).detach())
    for depth in (1, 2, 3, 3):  # 0.0, 0.1, 0.2, and 0, whose output is that of 0.2
        a, b = (net[0][:depth](x).detach().double() for net in (student, teacher))
        expected += 0.5 * float((a - b).square().mean() / b.square().mean())
    assert loss.layers == ["0", "0.0", "0.1", "0.2"]
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_features_of_a_narrower_network_come_nearer_and_no_hook_is_left():
    data, teacher = halves(), network(0)
    x = torch.from_numpy(data.batch(64))
    found = {}
    for features in ([], ["0"]):
        student = network(1, hidden=8)
        base = SoftTargets(teacher)
        loss = FeatureTargets(base, features) if features else base
        fit(student, data, epochs=10, lr=0.02, optimizer="adam", loss=loss)
        found[len(features)] = float((student[0](x) - teacher[0](x)).detach().square().mean())
        assert not any(module._forward_hooks for net in (student, teacher) for module in net.modules())

    assert found[1] < 0.2 * found[0]


def test_finetune_takes_features_of_the_original():
    data, model = halves(), network(0)
    near = copy.deepcopy(model)

    gs.apply(near, [gs.Prune(sparsity=0.5), gs.Finetune(epochs=2, lr=0.01, features="0*")], data)

    assert (near[0][0].weight == 0).float().mean() > 0.3


def test_what_cannot_be_compared_is_named():
    base = SoftTargets(network(0))
    loss = FeatureTargets(base, ["0.0"])
    narrow = network(1, hidden=8).train()
    x = torch.randn(2, 6)

    with pytest.raises(OptionError, match="the teacher has no layer '9'"):
        FeatureTargets(base, ["9"])
    with pytest.raises(OptionError, match="weight is 0"):
        FeatureTargets(base, ["0"], weight=0)
    with pytest.raises(OptionError, match=r"the network has no layer '0\.0'"), loss.watching(nn.ReLU()):
        pass
    with pytest.raises(OptionError, match="features follow those of a teacher"):
        gs.Finetune(features=["0"], teacher=None)
    with (
        loss.watching(narrow),
        pytest.raises(ModelError, match=r"0\.0 gives \(2, 8\) in the network and \(2, 12\)"),
    ):
        loss(narrow(x), torch.zeros(2, dtype=torch.long), x, narrow)
