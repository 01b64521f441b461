"""A task that trains in a second and uses all that a checkpoint has to keep; shared with a child process."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gossamer.data import Data
from gossamer.data.custom import as_data

OPTIONS = {
    "epochs": 5,
    "lr": 0.01,
    "batch_size": 16,
    "schedule": "cosine",
    "augment": "affine",
    "optimizer": "adam",
    "early_stop": 5,
    "seed": 3,
}


def data() -> Data:
    """Is the upper half of a noise picture brighter than the lower?"""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (90, 12, 12), np.uint8)
    y = (x[:, :6].mean((1, 2)) > x[:, 6:].mean((1, 2))).astype(np.int64)
    return as_data({"train": (x, y), "validation": (x[:40], y[:40]), "test": (x, y)}, name="halves")


def network() -> nn.Module:
    """Batch norm has buffers, dropout draws numbers, weight norm is a parametrization."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(400, 2)
    )
    nn.utils.parametrizations.weight_norm(model[5])
    return model
