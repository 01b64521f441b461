"""breakeven: what a product costs on this processor, dense and sparse, measured once and kept.

A table of the shortest of several calls, in milliseconds:

    dense    ONNX Runtime's product, by number of weights and of samples
    sparse   SparseGemm without a zero among the inputs, by number of bytes and of samples

Between two sizes the cost of one weight (or byte) is interpolated over the logarithm of the size, beyond them it is that
of the nearest. The table takes a few seconds to build and lies in the user's cache folder, one per processor, variant,
number of threads and version of ONNX Runtime; where that folder cannot be written it lasts as long as the process.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .. import native
from . import build, sparse
from .ports import Port

VERSION = 1  # of the table and of the kernels it measured
SAMPLES = (1, 16, 64)
SIDES = (512, 1024, 2048, 4096)  # of the square matrices that are measured
DENSITY = 0.1
SECONDS = 0.15  # of one measurement
FATAL = 4


@dataclass(frozen=True)
class Table:
    """(size, {samples: milliseconds}) in rising order of size."""

    dense: tuple[tuple[int, dict[int, float]], ...]
    sparse: tuple[tuple[int, dict[int, float]], ...]

    def dense_ms(self, weights: int, samples: int) -> float:
        """Milliseconds of a dense product with `weights` weights."""
        return _between(self.dense, weights, samples)

    def sparse_ms(self, size: int, samples: int) -> float:
        """Milliseconds of SparseGemm on `size` bytes."""
        return _between(self.sparse, size, samples)


def _between(rows: tuple[tuple[int, dict[int, float]], ...], size: int, samples: int) -> float:
    near = min(SAMPLES, key=lambda known: abs(np.log(known / samples)))
    sizes, each = zip(*((known, times[near] / known) for known, times in rows), strict=True)
    return float(np.interp(np.log(max(size, 1)), np.log(sizes), each)) * size * (samples / near)


@cache
def table(threads: int) -> Table:
    """The table of this machine for so many threads: read, or measured and written."""
    place = _place(threads)
    try:
        return _table(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: measure again
    found = measured(threads)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"dense": found.dense, "sparse": found.sparse}), encoding="utf-8")
        draft.replace(place)
    except OSError:
        pass  # a folder that cannot be written
    return found


def _table(data: Any) -> Table:
    def rows(name: str) -> tuple[tuple[int, dict[int, float]], ...]:
        made = tuple(
            (int(size), {int(samples): float(ms) for samples, ms in times.items()})
            for size, times in data[name]
        )
        if not made or any(set(times) != set(SAMPLES) or size < 1 for size, times in made):
            raise ValueError(name)
        if any(one[0] >= two[0] for one, two in pairwise(made)):
            raise ValueError(name)
        return made

    return Table(rows("dense"), rows("sparse"))


def measured(threads: int) -> Table:
    """The table, measured now."""
    rng = np.random.default_rng(0)
    dense, coded = [], []
    for side in SIDES:
        x = rng.standard_normal((max(SAMPLES), side), np.float32)
        weight = rng.standard_normal((side, side), np.float32)
        ports = [Port("x", ("batch", side), "float32")], [Port("y", ("batch", side), "float32")]
        model = build.model([build.node("MatMul", ["x", "w"], ["y"])], *ports, {"w": weight})
        dense.append((side * side, _times(model, x, threads)))
        positions = np.flatnonzero(rng.random(side * side, np.float32) < DENSITY)
        codes = rng.integers(0, sparse.CODES, positions.size, np.uint8)
        codebook = np.linspace(-1, 1, sparse.CODES, dtype=np.float32)
        fields = sparse.packed(positions, codes, codebook, (side, side), streams=threads)
        coded.append((fields.bytes.size, _times(sparse.model(fields), x, threads)))
    return Table(tuple(dense), tuple(coded))


def _times(model: bytes, x: np.ndarray, threads: int) -> dict[int, float]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    options.register_custom_ops_library(str(native.path()))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    clock = _clock(threads)
    return {count: _shortest(partial(session.run, None, {"x": x[:count]}), clock) for count in SAMPLES}


def _clock(threads: int) -> Callable[[], float]:
    """The processor time of one thread, which other programs do not lengthen, where it is fine enough; else the wall's."""
    fine = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if threads == 1 and fine else time.perf_counter


def _shortest(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Milliseconds of the shortest call: what else the machine does can only lengthen one."""
    call()
    best, end = float("inf"), clock() + SECONDS
    for turn in range(1000):
        before = clock()
        call()
        after = clock()
        best = min(best, after - before)
        if after > end and turn >= 2:
            break
    return best * 1e3


def _place(threads: int) -> Path:
    key = "-".join((_processor(), native.isa(), f"{threads}t", f"ort{ort.__version__}", f"v{VERSION}"))
    return cache_folder() / ("".join(c if c.isalnum() or c in "-." else "_" for c in key) + ".json")


def cache_folder() -> Path:
    """The user's folder for what can be made again."""
    if chosen := os.environ.get("GOSSAMER_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    return base / "gossamer"


def _home() -> Path:
    return Path(os.path.expanduser("~"))  # unlike Path.home(), never an error


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "processor"
