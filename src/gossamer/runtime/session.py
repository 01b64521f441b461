"""Session: a .goss file, opened and run by ONNX Runtime. Neither torch nor the onnx package is needed.

Raises: ArtifactError and its children for a file that breaks a rule or a graph that does not run, ModelError
for an input that does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from .. import artifact
from ..errors import ArtifactError, GossamerError, ModelError, OptionError
from . import exact, explain, feed, graph, lower, ports

CPU = ("CPUExecutionProvider",)
FATAL = 4  # ONNX Runtime's log level: what goes wrong is raised here, not printed


class Session:
    """An open file. Call it with numpy arrays; it returns one array, or a dict of several outputs."""

    def __init__(
        self,
        path: str | os.PathLike[str] | bytes,
        *,
        threads: int | None = None,
        max_bytes: int | None = None,
        providers: Sequence[str] = CPU,
        kernels: str = "auto",
        batch: int | None = None,
    ) -> None:
        place = "the file" if isinstance(path, bytes) else os.fspath(path)
        with artifact.Reader(path, max_bytes=max_bytes) as reader:
            self.metadata = reader.metadata
            self.size_bytes = reader.size_bytes
            self._outlines = tuple(reader.outline(name) for name in reader.names)
            _, body = graph.split(reader.graph)
            graph.refuse_external(body)
            self._nodes = graph.nodes(body)
            plan = _planned(reader, threads, kernels, batch)
            self._choices = plan.choices
            self._session = _create(reader, _options(threads), tuple(providers), place, plan)
        self.inputs = ports.ports(self._session.get_inputs())
        self.outputs = ports.ports(self._session.get_outputs())
        self._quick = ports.Quick.of(self.inputs)
        self._names = [port.name for port in self.outputs]

    @property
    def preprocess(self) -> Any:
        """The preprocessing that was packed (plain JSON), or None."""
        return self.metadata.get("preprocess")

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes, or None."""
        return self.metadata.get("labels")

    @property
    def notes(self) -> list[str]:
        """What packing could not do as asked, such as a fixed batch size."""
        return list(self.metadata.get("notes", ()))

    def __call__(self, *given: Any, **named: Any) -> np.ndarray | dict[str, np.ndarray]:
        """Run on arrays by position, by name, or in one mapping."""
        quick = None if named or len(given) != 1 else self._quick
        arrays = quick.arrays(given[0]) if quick is not None else None
        if arrays is None:
            arrays = ports.feed(self.inputs, given, named)
        try:
            results = self._session.run(self._names, arrays)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelError(f"the model does not run on this input: {_said(error)}") from error
        return results[0] if len(results) == 1 else dict(zip(self._names, results, strict=True))

    def explain(self) -> tuple[explain.Row, ...]:
        """Per layer that holds weights: operator, weight, layout, kernel, and why that kernel."""
        return explain.rows(self._nodes, self._outlines, self._choices)


def open(
    path: str | os.PathLike[str] | bytes,
    *,
    threads: int | None = None,
    max_bytes: int | None = None,
    providers: Sequence[str] = CPU,
    kernels: str = "auto",
    batch: int | None = None,
) -> Session:
    """Open a .goss file; `threads` defaults to one per core, `max_bytes` bounds the decoded weights.

    `kernels`: "auto" runs a layer on an operator of ours where that is expected to be faster, "dense" never, the
    name of a format ("sparse", "binary", "ternary", "ternary-int8") wherever that can be (see `runtime.lower`). `batch`:
    the number of samples of every call, if that is known; an operator need not be faster for other numbers then, and any
    number still runs.
    """
    return Session(
        path, threads=threads, max_bytes=max_bytes, providers=providers, kernels=kernels, batch=batch
    )


def _planned(reader: artifact.Reader, threads: int | None, kernels: str, batch: int | None) -> lower.Plan:
    if batch is not None and batch < 1:
        raise OptionError(f"batch is {batch}, but must be at least 1 (or None: any).")
    # the exact kernels of 8 bits want their weights inside the graph
    if kernels == "auto" and exact.options() and any(reader.outline(n).dtype == "int8" for n in reader.names):
        kernels = "dense"
    return lower.plan(reader, threads=threads, kernels=kernels, batch=batch)


def _options(threads: int | None) -> ort.SessionOptions:
    if threads is not None and threads < 1:
        raise OptionError(f"threads is {threads}, but must be at least 1 (or None: one per core).")
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads or 0
    return options


def _create(
    reader: artifact.Reader,
    options: ort.SessionOptions,
    providers: Sequence[str],
    place: str,
    plan: lower.Plan,
) -> ort.InferenceSession:
    try:
        return feed.create(reader, options, providers, plan)
    except GossamerError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ArtifactError(f"{place}: ONNX Runtime refuses the graph: {_said(error)}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
