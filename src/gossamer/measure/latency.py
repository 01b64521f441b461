"""Latency: what calls cost, of several functions measured side by side.

Machines drift (clock, neighbours), so the functions take turns, ABAB..., and only ratios of one run are
compared. Before that each is called at least 10 times and for at least 0.5 s: allocation, page faults and the
choice of kernels belong to the first calls. Then calls are timed one by one for 3 s; a slow function stops
there, but not before 5 calls. Inputs differ from call to call.
Figures: median, 5th and 95th percentile, minimum, in milliseconds; never the mean, which one stall can own.
One is called faster only where the 5-95 % ranges of the medians of ten parts of the run do not meet.
Source: the protocol of `timeit` (minimum) and of torch.utils.benchmark (median and
inter-quantile range).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MeasureError

if TYPE_CHECKING:
    from ..runtime import Port

INPUTS = 4  # different inputs in turn, so that no result of a call can be kept
WARM_UP_CALLS = 10
MIN_CALLS = 5
MAX_CALLS = 20_000
BLOCKS = 10


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call. `medians_ms`: 5-95 % range of the medians of BLOCKS parts of the run."""

    median_ms: float
    p5_ms: float
    p95_ms: float
    min_ms: float
    calls: int
    medians_ms: tuple[float, float]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """The figures of timed calls."""
        milliseconds = np.asarray(seconds) * 1e3
        low, middle, high = np.percentile(milliseconds, [5, 50, 95])
        parts = np.array_split(milliseconds, min(BLOCKS, len(seconds)))
        first, last = np.percentile([np.median(part) for part in parts], [5, 95])
        least = float(milliseconds.min())
        return cls(float(middle), float(low), float(high), least, len(seconds), (float(first), float(last)))

    def overlaps(self, other: Latency) -> bool:
        """True when the ranges of the medians meet: then neither may be called faster."""
        return self.medians_ms[0] <= other.medians_ms[1] and other.medians_ms[0] <= self.medians_ms[1]


def interleave(
    functions: Mapping[str, Callable[[Any], Any]],
    inputs: Sequence[Any],
    *,
    seconds: float = 3.0,
    warm_up_seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Latency of each function on the inputs in turn; `seconds` bounds the timed part of all together."""
    if not functions or not inputs:
        raise MeasureError(
            f"latency: {len(functions)} functions on {len(inputs)} inputs; give at least one of each."
        )
    for function in functions.values():
        start, calls = clock(), 0
        while calls < WARM_UP_CALLS or clock() - start < warm_up_seconds:
            function(inputs[calls % len(inputs)])
            calls += 1
            if calls >= MIN_CALLS and clock() - start > seconds:  # a call of seconds is warm by now
                break
    timed: dict[str, list[float]] = {name: [] for name in functions}
    start, turn = clock(), 0
    while turn < MAX_CALLS and (turn < MIN_CALLS or clock() - start < seconds):
        x = inputs[turn % len(inputs)]
        for name, function in functions.items():
            before = clock()
            function(x)
            timed[name].append(clock() - before)
        turn += 1
    return {name: Latency.of(values) for name, values in timed.items()}


def against_onnxruntime(
    path: str | Path,
    *,
    against: str | Path | None = None,
    threads: int = 1,
    batch: int = 1,
    seconds: float = 3.0,
) -> dict[str, Any]:
    """A packed file beside plain ONNX Runtime on a dense float32 network, same threads, same run.

    The dense network is that of `against` (a .goss file, such as the packed original), else the file itself
    unpacked. Returns {"threads", "batch", "ours", "onnxruntime_fp32", "ratio_of_medians", "overlap"}; the
    ratio is onnxruntime / ours, so above 1 the packed file is faster. The packed file is opened for this batch. Inputs are
    drawn from N(0, 1), or from {0, 1} for integers, in the shapes the network declares (a free axis other than the batch is 1).
    """
    import onnxruntime

    from .. import runtime

    session = runtime.open(path, threads=threads, batch=batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    dense = onnxruntime.InferenceSession(
        runtime.unpack(against or path), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    inputs = [random_inputs(session.inputs, batch=batch, rng=rng) for _ in range(INPUTS)]
    figures = interleave(
        {"ours": session, "onnxruntime_fp32": lambda feeds: dense.run(None, feeds)},
        inputs,
        seconds=seconds,
    )
    ours, theirs = figures["ours"], figures["onnxruntime_fp32"]
    return {
        "threads": threads,
        "batch": batch,
        "ours": asdict(ours),
        "onnxruntime_fp32": asdict(theirs),
        "ratio_of_medians": theirs.median_ms / ours.median_ms,
        "overlap": ours.overlaps(theirs),
    }


def random_inputs(
    ports: Sequence[Port],
    *,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """One array for each input: N(0, 1), or {0, 1} for integers; free axes are 1 but the batch, or as in `shapes`."""
    feeds = {}
    for port in ports:
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        if shapes and port.name in shapes:
            shape = list(shapes[port.name])
        elif port.shape and not isinstance(port.shape[0], int):
            shape[0] = batch
        elif batch != 1 and shape and shape[0] != batch:
            raise MeasureError(
                f"input {port} has a fixed batch, received batch {batch}. Leave the batch at {shape[0]}."
            )
        normal = rng.standard_normal(shape)
        floats = np.dtype(port.dtype).kind == "f"
        feeds[port.name] = normal.astype(port.dtype) if floats else (normal > 0).astype(port.dtype)
    return feeds
