"""Measure a torch model on a split, and re-estimate its batch-norm statistics.

    loss = mean cross entropy        accuracy = correct / total, in 0..1

The figure that counts is measured on the packed file by the runtime; this one guides training and choices.
Raises: ModelError when the model does not return logits [N, classes]; DataError for labels beyond its
outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from gossamer.data.preprocess import Preprocess
from gossamer.data.split import Data, Split
from gossamer.errors import DataError, ModelError
from gossamer.training.layout import Layout


@dataclass(frozen=True)
class Evaluation:
    """What a model did on a split."""

    loss: float
    accuracy: float
    correct: int
    total: int


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Set training or evaluation mode and give every module its own back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def check_logits(outputs: Any, labels: Tensor, model: nn.Module) -> Tensor:
    """The outputs, when they are logits [N, classes] that the labels fit."""
    name = type(model).__name__
    if not isinstance(outputs, Tensor):
        extra = f" with keys {list(outputs)}" if isinstance(outputs, dict) else ""
        raise ModelError(
            f"{name}: returned {type(outputs).__name__}{extra}, expected one tensor of logits "
            f"[{len(labels)}, classes]. "
            f"Wrap the model so that it returns its logits."
        )
    if outputs.ndim != 2 or outputs.shape[0] != len(labels):
        raise ModelError(
            f"{name}: returned shape {tuple(outputs.shape)}, expected logits [{len(labels)}, classes] for a "
            f"batch of "
            f"{len(labels)}."
        )
    return outputs


def check_labels(labels: Any, outputs: int, *, place: str, model: nn.Module) -> None:
    """DataError when a label has no output."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < outputs:
        raise DataError(
            f"{place}: labels go from {int(labels.min())} to {int(labels.max())}, expected 0 to "
            f"{outputs - 1} because "
            f"{type(model).__name__} has {outputs} outputs. Use a model with an output for each class."
        )


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lies; the processor for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    max_batches: int | None = None,
) -> Evaluation:
    """Loss and accuracy of the model in evaluation mode."""
    device, layout = device_of(model), Layout()
    loss, correct, total = 0.0, 0, 0
    if not len(split):
        raise DataError(f"{split.name}: the split is empty, expected at least one sample.")
    # weights under a format are rebuilt once for all batches
    with mode(model, training=False), parametrize.cached():
        for inputs, labels in islice(split.batches(batch_size, preprocess=preprocess), max_batches):
            truth = torch.from_numpy(labels).to(device)
            logits = check_logits(
                _run(model, torch.from_numpy(inputs).to(device), layout), truth, model
            ).float()
            if not total:
                check_labels(split.labels, logits.shape[1], place=split.name, model=model)
            loss += float(F.cross_entropy(logits, truth, reduction="sum"))
            correct += int((logits.argmax(1) == truth).sum())
            total += len(labels)
    return Evaluation(loss / total, correct / total, correct, total)


@torch.no_grad()
def recalibrate_norms(
    model: nn.Module, data: Data, *, batches: int = 50, batch_size: int = 128, seed: int = 0
) -> int:
    """Re-estimate running mean and variance of every batch norm on training data; returns how many there are.

    The cumulative average over the batches replaces the old statistics: (1 / B) sum_b mean_b. Only the norms
    are in training mode, so dropout and quantizers behave as when the file runs.
    """
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return 0
    device, layout = device_of(model), Layout()
    rng = np.random.default_rng([seed, 1])
    with mode(model, training=False), parametrize.cached():
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.train()
                norm.momentum = None  # torch: None averages all batches alike
            chosen = data.train.batches(batch_size, preprocess=data.preprocess, rng=rng)
            for inputs, _ in islice(chosen, batches):
                _run(model, torch.from_numpy(inputs).to(device), layout)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return len(norms)


def _run(model: nn.Module, inputs: Tensor, layout: Layout) -> Any:
    try:
        return model(layout(inputs))
    except RuntimeError as error:
        if not layout.refused(error):
            raise
        return model(layout(inputs))
