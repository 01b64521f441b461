"""Soft targets equal the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gossamer.data.custom import as_data
from gossamer.distillation.logits import SoftTargets, soft_target_loss
from gossamer.errors import ModelError, OptionError
from gossamer.training import fit


def logits(seed, count=5, classes=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, classes)) * 3)


def fixed(values):
    """A teacher that answers the same to every input."""
    teacher = nn.Module()
    teacher.forward = lambda inputs: values
    return teacher


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.0, 0.9, 1.0])
def test_the_loss_is_the_sum_written_out(temperature, weight):
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 3, 1, 1, 2])
    loss = SoftTargets(fixed(teacher), temperature=temperature, weight=weight)

    value = loss(student, labels, torch.zeros(5, 1), nn.Identity())

    expected = 0.0
    for s, t, y in zip(student.numpy(), teacher.numpy(), labels.tolist(), strict=True):
        p = np.exp(t / temperature) / np.exp(t / temperature).sum()
        q = np.exp(s / temperature) / np.exp(s / temperature).sum()
        hard = -np.log(np.exp(s[y]) / np.exp(s).sum())
        expected += ((1 - weight) * hard + weight * temperature**2 * (p * np.log(p / q)).sum()) / 5
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_soft_term_vanishes_for_equal_outputs_up_to_a_constant():
    assert soft_target_loss(logits(0), logits(0) + 7, temperature=3.0).item() == pytest.approx(0, abs=1e-12)


def test_its_gradient_is_the_temperature_times_the_difference_of_probabilities():
    student, teacher = logits(0).requires_grad_(), logits(1)

    soft_target_loss(student, teacher, temperature=5.0).backward()

    expected = 5.0 * (F.softmax(student / 5, 1) - F.softmax(teacher / 5, 1)) / len(student)
    torch.testing.assert_close(student.grad, expected.detach())


def test_the_teacher_stays_as_it_is_and_the_student_learns_from_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.9)).train()
    before = teacher[0].weight.clone()
    with torch.no_grad():
        y = teacher[0](torch.from_numpy(x)).argmax(1).numpy()
    wrong = (y + 1) % 3  # labels that the soft term alone must not follow
    student = nn.Linear(6, 3)
    data = as_data({"train": (x, wrong), "validation": (x, y), "test": (x, y)}, name="taught")

    history = fit(student, data, epochs=8, lr=0.5, batch_size=40, loss=SoftTargets(teacher, weight=1.0))

    assert history.last.validation_accuracy > 0.95
    assert (teacher[0].weight == before).all()
    assert teacher[0].weight.grad is None


def test_outputs_that_do_not_match_are_named():
    loss = SoftTargets(fixed(logits(0, classes=4)))

    with pytest.raises(ModelError, match=r"student returned \(5, 3\), expected logits"):
        loss(logits(1, classes=3), torch.zeros(5, dtype=torch.int64), torch.zeros(5, 1), nn.Identity())
    with pytest.raises(ModelError, match="student returned dict"):
        loss({}, torch.zeros(5, dtype=torch.int64), torch.zeros(5, 1), nn.Identity())
    with pytest.raises(ModelError, match="teacher returned tuple"):
        SoftTargets(fixed((1, 2)))(
            logits(0), torch.zeros(5, dtype=torch.int64), torch.zeros(5, 1), nn.Identity()
        )


@pytest.mark.parametrize("option", [{"temperature": 0.0}, {"weight": 1.5}, {"weight": -0.1}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(OptionError, match=f"soft targets: {next(iter(option))} is"):
        SoftTargets(nn.Identity(), **option)


def test_the_teacher_computes_in_the_precision_of_the_student():
    seen = []

    class Teacher(nn.Linear):
        def forward(self, x):
            result = super().forward(x)
            seen.append(result.dtype)
            return result

    inputs = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    split = (inputs, (inputs[:, 0] > 0).astype(np.int64))
    data = as_data({"train": split, "validation": split, "test": split}, name="halves")
    student = nn.Linear(6, 2)

    history = fit(student, data, epochs=1, lr=0.1, mixed_precision="bf16", loss=SoftTargets(Teacher(6, 2)))

    assert set(seen) == {torch.bfloat16}
    assert student.weight.dtype == torch.float32
    assert np.isfinite(history.last.train_loss)
