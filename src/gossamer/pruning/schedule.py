"""Schedules: the sparsity after each round of pruning and retraining.

    one-shot    everything in the first round
    iterative   the kept fraction shrinks by the same factor each round: d_r = d_0 (d_n / d_0)^(r / n)
    cubic       s_r = s_n + (s_0 - s_n) (1 - r / n)^3: fast while there is much to lose, slow at the end

Sources: iterative pruning: Han et al., NIPS 2015, arXiv:1506.02626; cubic: Zhu, Gupta, "To prune, or not to prune",
2017, arXiv:1710.01878, eq. 1.
"""

from __future__ import annotations

from ..errors import OptionError, nearest

SCHEDULES = ("one-shot", "iterative", "cubic")


def sparsities(schedule: str, target: float, rounds: int, *, start: float = 0.0) -> list[float]:
    """The sparsity after each of `rounds` rounds, ending exactly at `target`; never falling."""
    if schedule not in SCHEDULES:
        raise OptionError(f"Unknown pruning schedule {schedule!r}. {nearest(str(schedule), SCHEDULES)}")
    if rounds < 1:
        raise OptionError(f"rounds must be at least 1; received {rounds!r}.")
    if schedule == "one-shot" or rounds == 1:
        return [target] * rounds
    if schedule == "iterative":
        kept = [(1 - start) * ((1 - target) / (1 - start)) ** (r / rounds) for r in range(1, rounds + 1)]
        values = [1 - k for k in kept]
    else:
        values = [target + (start - target) * (1 - r / rounds) ** 3 for r in range(1, rounds + 1)]
    return [max(value, start) for value in [*values[:-1], target]]
