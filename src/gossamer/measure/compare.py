"""compare: two networks side by side, each as it is deployed.

A subject is a torch module, a .goss or .onnx file, or a report (report.json of a run, or the output of
`gossamer profile --json`). Modules and .onnx files run in ONNX Runtime, packed files in Gossamer's session; both
take turns in one process, on the same inputs. A report's latency was measured in another run, so it is left out.

    ratio = A / B      above 1: B has less

Raises: MeasureError for a file that is none of these, and for subjects whose inputs differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GossamerError, MeasureError
from .accuracy import Accuracy, accuracy
from .latency import INPUTS, Latency, interleave, random_inputs
from .profile import Profile, example_of, profile

FIGURES = (
    *("file_bytes", "params", "nonzero", "dense_bytes", "macs", "flops", "other_ops", "traffic_bytes"),
    *("peak_activation_bytes", "accuracy", "latency_ms"),
)


@dataclass(frozen=True)
class Subject:
    """Figures by name, and how to run it where that is possible."""

    name: str
    figures: Mapping[str, float | None]
    run: Callable[[Mapping[str, np.ndarray]], Any] | None = None
    ports: tuple[Any, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One figure of both, and A / B; None where it is not known."""

    figure: str
    a: float | None
    b: float | None
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """The lines in the order of FIGURES; `overlap` true: neither may be called faster."""

    a: str
    b: str
    lines: tuple[Line, ...]
    latency: Mapping[str, Latency] = field(default_factory=dict)
    overlap: bool | None = None
    threads: int = 1
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; keys as in docs/json.md."""
        return {
            "a": self.a,
            "b": self.b,
            "figures": [asdict(line) for line in self.lines],
            "latency": {name: asdict(value) for name, value in self.latency.items()},
            "overlap": self.overlap,
            "threads": self.threads,
            "notes": list(self.notes),
        }


def compare(
    a: Any,
    b: Any,
    example: Any = None,
    *,
    data: Any = None,
    latency: bool = True,
    threads: int = 1,
    seconds: float = 3.0,
    names: tuple[str, str] | None = None,
) -> Comparison:
    """Two modules, files or reports; `example` as in `profile`, `data` a Data to count right answers on."""
    given = names or (None, None)
    first, second = (
        _subject(value, example, threads=threads, runs=latency or data is not None, name=name)
        for value, name in zip((a, b), given, strict=True)
    )
    notes = [f"{subject.name}: {note}" for subject in (first, second) for note in subject.notes]
    figures = [dict(first.figures), dict(second.figures)]
    if data is not None:
        for subject, found in zip((first, second), figures, strict=True):
            if subject.run is not None:
                found["accuracy"] = _accuracy(subject, data).value
    times: dict[str, Latency] = {}
    overlap = None
    if latency and first.run is not None and second.run is not None:
        pair = _times(first, second, seconds)
        for found, value in zip(figures, pair, strict=True):
            found["latency_ms"] = value.median_ms
        times = {"a": pair[0], "b": pair[1]}
        overlap = pair[0].overlaps(pair[1])
    elif latency:
        notes.append("latency is compared only where both can run here, in one process")
    lines = tuple(_line(name, figures[0].get(name), figures[1].get(name)) for name in FIGURES)
    kept = tuple(line for line in lines if line.a is not None or line.b is not None)
    return Comparison(first.name, second.name, kept, times, overlap, threads, tuple(notes))


def _line(name: str, a: float | None, b: float | None) -> Line:
    return Line(name, a, b, a / b if a is not None and b else None)


def _subject(value: Any, example: Any, *, threads: int, runs: bool, name: str | None) -> Subject:
    if isinstance(value, (str, os.PathLike)):
        path = Path(value)
        if not path.is_file():
            raise MeasureError(f"{path}: there is no such file to compare.")
        if path.suffix == ".json":
            return _reported(path)
        return _file(path, example, threads, name)
    return _module(value, example, threads, runs, name)


def _reported(path: Path) -> Subject:
    """Figures of a report; keys that it lacks stay unknown."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MeasureError(
            f"{path}: is not JSON ({error}). Give report.json, or `profile --json`."
        ) from error
    if isinstance(report, dict) and "total" in report and "memory" in report:
        total = report["total"]
        figures = {name: total.get(name) for name in ("params", "nonzero", "dense_bytes", "macs", "flops")}
        figures |= {
            "file_bytes": report.get("file_bytes"),
            "traffic_bytes": total.get("traffic_bytes"),
            "other_ops": sum(total.get("other_ops", {}).values()),
            "peak_activation_bytes": report["memory"].get("peak_activation_bytes"),
        }
        return Subject(path.name, figures)
    if isinstance(report, dict) and "after" in report:
        after = report["after"]
        figures = {
            "file_bytes": after.get("file_bytes"),
            "params": after.get("parameters"),
            "dense_bytes": report["before"].get("weights_bytes"),
            "accuracy": (after.get("accuracy") or {}).get("value"),
        }
        return Subject(path.name, figures)
    raise MeasureError(
        f"{path}: is neither a report.json of a run nor the output of `gossamer profile --json`. Give one of them."
    )


def _file(path: Path, example: Any, threads: int, name: str | None) -> Subject:
    from .. import runtime
    from .timing import onnx_session

    counted = profile(path, example)
    shapes = {key: shape for key, (_, shape) in counted.inputs.items()}
    if path.suffix == ".goss":
        packed = runtime.open(path, threads=threads)
        return Subject(name or path.name, _figures(counted), packed, tuple(packed.inputs), shapes)
    session = onnx_session(str(path), threads)
    ports = runtime.ports.ports(session.get_inputs())
    return Subject(
        name or path.name, _figures(counted), lambda feeds: session.run(None, feeds)[0], ports, shapes
    )


def _module(model: Any, example: Any, threads: int, runs: bool, name: str | None) -> Subject:
    from .. import runtime
    from .timing import exported, onnx_session

    counted = profile(model, example)
    called = name or type(model).__name__
    shapes = {key: shape for key, (_, shape) in counted.inputs.items()}
    if not runs:
        return Subject(called, _figures(counted), shapes=shapes)
    try:
        session = onnx_session(exported(model, example_of(example)), threads)
    except GossamerError as error:
        return Subject(
            called, _figures(counted), shapes=shapes, notes=(f"cannot run in ONNX Runtime: {error}",)
        )
    ports = runtime.ports.ports(session.get_inputs())
    return Subject(called, _figures(counted), lambda feeds: session.run(None, feeds)[0], ports, shapes)


def _figures(counted: Profile) -> dict[str, float | None]:
    total = counted.total
    return {
        "file_bytes": counted.file_bytes,
        "params": total.params,
        "nonzero": total.nonzero,
        "dense_bytes": total.dense_bytes,
        "macs": counted.macs,
        "flops": counted.flops,
        "other_ops": total.cost.total_other_ops,
        "traffic_bytes": total.cost.traffic_bytes,
        "peak_activation_bytes": counted.peak_activation_bytes,
    }


def _times(a: Subject, b: Subject, seconds: float) -> tuple[Latency, Latency]:
    """Both on the same values: inputs are paired by position."""
    assert a.run is not None
    assert b.run is not None
    if [tuple(shape) for shape in a.shapes.values()] != [tuple(shape) for shape in b.shapes.values()]:
        raise MeasureError(
            f"compare: {a.name} takes {_described(a)}, but {b.name} takes {_described(b)}. "
            "Give --input so that both run on the same shapes, or compare without latency."
        )
    rng = np.random.default_rng(0)
    feeds = []
    for _ in range(INPUTS):
        mine = random_inputs(a.ports, shapes=a.shapes, rng=rng)
        theirs = {port.name: value for port, value in zip(b.ports, mine.values(), strict=True)}
        feeds.append((mine, theirs))
    run_a, run_b = a.run, b.run
    found = interleave(
        {"a": lambda pair: run_a(pair[0]), "b": lambda pair: run_b(pair[1])}, feeds, seconds=seconds
    )
    return found["a"], found["b"]


def _described(subject: Subject) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in subject.shapes.items())


def _accuracy(subject: Subject, data: Any) -> Accuracy:
    assert subject.run is not None
    if len(subject.ports) != 1:
        raise MeasureError(
            f"{subject.name}: accuracy needs one input, but there are {len(subject.ports)}. Compare without data."
        )
    run, port = subject.run, subject.ports[0]
    free = not (port.shape and isinstance(port.shape[0], int))
    batch = 500 if free else int(port.shape[0])
    return accuracy(lambda inputs: run({port.name: inputs}), data.test, data.preprocess, batch=batch)
