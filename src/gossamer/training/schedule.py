"""Learning-rate schedules as pure functions: the factor on the base rate at a fraction of the run.

    constant    1
    cosine      (1 + cos(pi t)) / 2
    step        1, then 0.1 from t = 1/2, then 0.01 from t = 3/4
    one-cycle   from 1/25 up to 1 by t = 0.3, down to 1e-4 at the end, both along a cosine

t in [0, 1) counts the steps after the warm-up; during the warm-up the factor of t = 0 is reached linearly.
A factor depends on the step number alone, so a resumed run needs no replay.
Source of one-cycle: Smith, Topin, "Super-convergence", 2018, in the two-phase form of PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gossamer.errors import OptionError, nearest


def constant(t: float) -> float:
    return 1.0


def cosine(t: float) -> float:
    return (1 + math.cos(math.pi * t)) / 2


def step(t: float) -> float:
    return 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01


def one_cycle(t: float, *, peak: float = 0.3, first: float = 0.04, last: float = 1e-4) -> float:
    if t < peak:
        return 1 + (first - 1) * cosine(t / peak)
    return last + (1 - last) * cosine((t - peak) / (1 - peak))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
    "one-cycle": one_cycle,
}


def find_schedule(name: str) -> Callable[[float], float]:
    """The schedule of that name."""
    if name not in SCHEDULES:
        raise OptionError(f"schedule: unknown name {name!r}. {nearest(name, SCHEDULES)}")
    return SCHEDULES[name]


def factor(schedule: Callable[[float], float], step: int, *, total: int, warmup: int = 0) -> float:
    """The factor at `step` (from 0) of `total` steps, of which the first `warmup` rise linearly."""
    if step < warmup:
        return schedule(0.0) * (step + 1) / warmup
    return schedule((step - warmup) / max(1, total - warmup))
