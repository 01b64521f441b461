"""A few thousand damaged files, as benchmarks/mutate.py makes a hundred thousand."""

from __future__ import annotations

import importlib.util
import random
import tracemalloc
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "mutate.py"
_specification = importlib.util.spec_from_file_location("mutate", SCRIPT)
mutate = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(mutate)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_refused_or_give_the_original(seed):
    figures = mutate.run(1000, seed=1000 + seed)

    assert figures["failures"] == []
    assert {"ChecksumError", "TruncatedError", "HeaderError", "CodecError"} <= set(figures["verdicts"])


def test_a_repaired_file_that_is_not_damaged_is_the_original():
    for data in mutate.originals():
        sections = mutate.Sections(data)

        assert sections.join(sections.frame, sections.raw_size, sections.payloads) == data


@pytest.mark.parametrize("damage", mutate.BLIND, ids=lambda damage: damage.__name__)
def test_blind_damage_never_gives_other_values(damage):
    rng = random.Random(5)
    data = mutate.originals()[0]
    truth = mutate.decoded(data)
    tracemalloc.start()

    verdicts = {mutate.judge(damage(data, rng), truth, blind=True)[0] for _ in range(100)}

    tracemalloc.stop()
    assert not [verdict for verdict in verdicts if verdict.startswith("bad")]
