"""Random states of a run: derived from (seed, epoch, process), and private to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_everything(seed: int, epoch: int, process: int) -> None:
    """Dropout draws from torch; a user's own transforms may draw from numpy or Python."""
    words = np.random.SeedSequence([seed, epoch, process, 2]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  # the user's code may draw from it
    random.seed(int(words[2]))


@contextmanager
def private_randomness() -> Iterator[None]:
    """Give the caller's random states back afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
