"""breakeven: what kernels cost on this processor, measured once and kept.

A curve holds what a call takes, in milliseconds, by size (of the weight, or whatever its kernel's time grows with) and
number of samples. Between two sizes the cost of one unit of size is interpolated over the logarithm of the size, beyond
them it is that of the nearest. `dense` is ONNX Runtime's product by number of weights; each lowering brings the curves of
its own operator.

A weight that nothing displaces is read from the nearest cache, which no weight of a large network is: before its next call
the other layers have been there. So products are measured with as much memory read between two calls as those layers have
(`traffic`, rounded to one of TRAFFIC): dense 1024 x 1024 then takes twice as long, and at 10 % of the weights the sparse
product is the faster one.

A curve takes a second or two to measure and lies in the user's cache folder, one per processor, variant, number of threads
and version of ONNX Runtime; where that folder cannot be written it lasts as long as the process.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .. import native
from . import build
from .ports import Port

VERSION = 3  # of the curves and of the kernels they measured
SAMPLES = (1, 4, 16, 64)
TRAFFIC = (0, 2**23, 2**26)  # bytes: caches of one core, of all cores, and none
SIDES = (512, 1024, 2048, 4096)  # of the square matrices that are measured
SECONDS = 0.15  # of one measurement
FATAL = 4

Rows = tuple[tuple[int, Mapping[int, float]], ...]


@dataclass(frozen=True)
class Curve:
    """(size, {samples: milliseconds}) in rising order of size, the same samples for every size."""

    rows: Rows

    def ms(self, size: int, samples: int) -> float:
        """Milliseconds for this size and number of samples."""
        near = min(self.rows[0][1], key=lambda known: abs(np.log(known / samples)))
        sizes, each = zip(*((known, times[near] / known) for known, times in self.rows), strict=True)
        return float(np.interp(np.log(max(size, 1)), np.log(sizes), each)) * size * (samples / near)


@cache
def curve(name: str, threads: int, measure: Callable[..., Rows], **given: int) -> Curve:
    """The curve `name` of this machine for so many threads: read, or measured (`measure(threads, **given)`) and written."""
    place = _place("-".join((name, *(f"{key}{value}" for key, value in given.items()))), threads)
    try:
        return _curve(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # none yet, or damaged: measure again
    found = Curve(measure(threads, **given))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(found.rows), encoding="utf-8")
        draft.replace(place)
    except OSError:
        pass  # a folder that cannot be written
    return found


def dense(threads: int, *, traffic: int = 0) -> Curve:
    """ONNX Runtime's product in float32, by number of weights."""
    return curve("dense", threads, _dense, traffic=traffic)


def level(size_bytes: int) -> int:
    """The one of TRAFFIC that stands for so many bytes."""
    return next((one for one in TRAFFIC[:-1] if size_bytes <= max(3 * one, 2**20)), TRAFFIC[-1])


def _curve(data: Any) -> Curve:
    rows = tuple(
        (int(size), {int(samples): float(ms) for samples, ms in times.items()}) for size, times in data
    )
    if any(set(times) != set(rows[0][1]) or size < 1 for size, times in rows) or not rows[0][1]:
        raise ValueError("sizes and samples")
    if any(one[0] >= two[0] for one, two in pairwise(rows)):
        raise ValueError("order of sizes")
    return Curve(rows)


def _dense(threads: int, traffic: int) -> Rows:
    rng = np.random.default_rng(0)
    rows = []
    for side in SIDES:
        x = rng.standard_normal((max(SAMPLES), side), np.float32)
        weight = rng.standard_normal((side, side), np.float32)
        ports = [Port("x", ("batch", side), "float32")], [Port("y", ("batch", side), "float32")]
        model = build.model([build.node("MatMul", ["x", "w"], ["y"])], *ports, {"w": weight})
        rows.append((side * side, times(model, x, threads, traffic=traffic)))
    return tuple(rows)


def times(
    model: bytes, x: np.ndarray, threads: int, samples: tuple[int, ...] | None = None, *, traffic: int = 0
) -> dict[int, float]:
    """Milliseconds of a call of a model of one input "x", by number of samples (all of SAMPLES).

    traffic: bytes that are read between two calls
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    options.register_custom_ops_library(str(native.path()))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    clock = _clock(threads)
    between = np.ones(traffic // 8).sum
    return {
        count: _usual(partial(session.run, None, {"x": x[:count]}), between, clock)
        for count in samples or SAMPLES
    }


def _clock(threads: int) -> Callable[[], float]:
    """The processor time of one thread, which other programs do not lengthen, where it is fine enough; else the wall's."""
    fine = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if threads == 1 and fine else time.perf_counter


def _usual(call: Callable[[], object], between: Callable[[], object], clock: Callable[[], float]) -> float:
    """Milliseconds that a quarter of the calls do not reach: what else the machine does can only lengthen one."""
    call()
    taken, end = list[float](), clock() + SECONDS
    while len(taken) < 4 or (len(taken) < 1000 and clock() < end):
        between()
        before = clock()
        call()
        taken.append(clock() - before)
    return sorted(taken)[len(taken) // 4] * 1e3


def _place(name: str, threads: int) -> Path:
    key = "-".join((name, _processor(), native.isa(), f"{threads}t", f"ort{ort.__version__}", f"v{VERSION}"))
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
