"""timing: adds measured milliseconds to a profile, by the protocol of `latency`.

    module   the torch model in torch, call by call in turn with ONNX Runtime on the exported float32 graph
    file     a packed file in Gossamer's session, in turn with ONNX Runtime on its dense float32 weights;
             an .onnx file in ONNX Runtime alone

Inputs are drawn anew (floats from N(0, 1), integers within the range of the example), four of them in turn. The
time of one layer is its own, without the layers inside it: medians of separate calls with a clock around each layer
(torch), or ONNX Runtime's own profile, whose fused operators belong to the first of their nodes. These clocks cost
time themselves, so the layers need not add up to the latency of the network.
Raises: MeasureError for weights on the meta device; a graph that cannot be exported is a note, not an error.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GossamerError, MeasureError
from .latency import INPUTS, interleave, random_inputs
from .profile import Profile

LAYER_CALLS = 20


def module(profile: Profile, model: Any, example: Any, *, threads: int, seconds: float) -> Profile:
    """The profile of a torch module with its latency in torch and in ONNX Runtime (float32)."""
    import torch

    from ..export.example import Example
    from ..methods.layer_inputs import evaluating

    if any(value.is_meta for value in (*model.parameters(), *model.buffers())):
        raise MeasureError(
            "latency: weights on the meta device cannot run. Load the model with weights first."
        )
    given = Example.of(model, example)
    rng = np.random.default_rng(0)
    inputs = [given.changed(lambda value: _drawn(value, rng)) for _ in range(INPUTS)]
    notes = list(profile.notes)
    functions: dict[str, Callable[[Any], Any]] = {"torch": lambda x: model(*x.args, **x.kwargs)}
    try:
        session = onnx_session(exported(model, given), threads)
        functions["onnxruntime_fp32"] = lambda x: session.run(None, x.arrays)
    except GossamerError as error:
        notes.append(f"latency in ONNX Runtime was not measured: {error}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with evaluating(model):
            figures = interleave(functions, inputs, seconds=seconds)
            layers = _module_times(model, inputs)
    finally:
        torch.set_num_threads(before)
    return _with(profile, figures, layers, threads, tuple(notes))


def file(profile: Profile, path: Path, *, threads: int, seconds: float) -> Profile:
    """The profile of a .goss or .onnx file with its latency."""
    from .. import runtime

    shapes = {name: shape for name, (_, shape) in profile.inputs.items()}
    functions: dict[str, Callable[[Any], Any]] = {}
    if path.suffix == ".goss":
        packed = runtime.open(path, threads=threads)
        functions["gossamer"] = packed
        dense = onnx_session(runtime.unpack(path), threads)
        functions["onnxruntime_fp32"] = lambda feeds: dense.run(None, feeds)
        ports = packed.inputs
    else:
        dense = onnx_session(str(path), threads)
        functions["onnxruntime"] = lambda feeds: dense.run(None, feeds)
        ports = runtime.ports.ports(dense.get_inputs())
    rng = np.random.default_rng(0)
    inputs = [random_inputs(ports, shapes=shapes, rng=rng) for _ in range(INPUTS)]
    figures = interleave(functions, inputs, seconds=seconds)
    source = runtime.unpack(path) if path.suffix == ".goss" else str(path)
    return _with(profile, figures, _node_times(source, inputs, threads, profile), threads, profile.notes)


def time_share(
    candidate: Any, reference: Any, example: Any, *, threads: int = 1, seconds: float = 1.0
) -> float:
    """Milliseconds of a call of `candidate` over those of `reference`, both torch modules run by ONNX Runtime in turn."""
    from ..export.example import Example

    given = Example.of(reference, example)
    rng = np.random.default_rng(0)
    inputs = [given.changed(lambda value: _drawn(value, rng)).arrays for _ in range(INPUTS)]

    def running(model: Any) -> Callable[[Any], Any]:
        session = onnx_session(exported(model, given), threads)
        return lambda feeds: session.run(None, feeds)

    functions = {"candidate": running(candidate), "reference": running(reference)}
    figures = interleave(functions, inputs, seconds=seconds)
    return figures["candidate"].median_ms / figures["reference"].median_ms


def _with(
    profile: Profile,
    figures: Mapping[str, Any],
    layers: Mapping[str, float],
    threads: int,
    notes: tuple[str, ...],
) -> Profile:
    rows = tuple(replace(row, latency_ms=layers.get(row.name)) for row in profile.rows)
    total = replace(profile.total, latency_ms=sum(layers.values()) if layers else None)
    return replace(profile, rows=rows, total=total, latency=dict(figures), threads=threads, notes=notes)


def _drawn(value: Any, rng: np.random.Generator) -> Any:
    """Another tensor of the same kind."""
    import torch

    if value.is_floating_point():
        return torch.from_numpy(rng.standard_normal(tuple(value.shape))).to(value.dtype)
    if value.dtype == torch.bool or not value.numel():
        return value.clone()
    low, high = int(value.min()), int(value.max())
    return torch.from_numpy(rng.integers(low, high + 1, tuple(value.shape))).to(value.dtype)


def exported(model: Any, example: Any) -> bytes:
    """The model as a plain float32 ONNX file with the example's own shapes."""
    from .. import formats, runtime
    from ..export import pack
    from ..export.example import Example

    if not isinstance(example, Example):
        example = Example.of(model, example)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.goss"
        given = example.kwargs if example.kwargs else example.args
        pack(formats.baked(model), path, given, dynamic_batch=False, input_names=example.names)
        return runtime.unpack(path)


def onnx_session(source: bytes | str, threads: int, *, profiled: str | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profiled is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profiled
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _module_times(model: Any, inputs: list[Any]) -> dict[str, float]:
    """Milliseconds of each module's own work in one call: the median over LAYER_CALLS calls."""
    from torch import nn

    names = {id(module): name for name, module in reversed(list(model.named_modules()))}
    spent: dict[str, list[float]] = {}
    stack: list[list[float]] = []  # start, time of the modules inside
    now: dict[str, float] = {}

    def enter(module: Any, args: Any) -> None:
        stack.append([time.perf_counter(), 0.0])

    def leave(module: Any, args: Any, output: Any) -> None:
        start, inner = stack.pop()
        whole = time.perf_counter() - start
        if stack:
            stack[-1][1] += whole
        name = names.get(id(module), "")
        now[name] = now.get(name, 0.0) + whole - inner

    @contextmanager
    def clocks() -> Iterator[None]:
        before = nn.modules.module.register_module_forward_pre_hook(enter)
        after = nn.modules.module.register_module_forward_hook(leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    with clocks():
        for call in range(LAYER_CALLS):
            now.clear()
            x = inputs[call % len(inputs)]
            model(*x.args, **x.kwargs)
            for name, value in now.items():
                spent.setdefault(name, []).append(value)
    return {name: 1e3 * statistics.median(values) for name, values in spent.items()}


def _node_times(source: bytes | str, inputs: list[Any], threads: int, profile: Profile) -> dict[str, float]:
    """Milliseconds of each layer in ONNX Runtime's own profile: medians over LAYER_CALLS calls after warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(source, threads, profiled=str(Path(folder) / "run"))
        for call in range(LAYER_CALLS):
            session.run(None, inputs[call % len(inputs)])
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["name"].removesuffix("_kernel_time"), event["args"].get("op_name", ""))
            spent.setdefault(key, []).append(event["dur"] / 1e3)
    return _owners({key: statistics.median(values) for key, values in spent.items()}, profile)


def _owners(nodes: Mapping[tuple[str, str], float], profile: Profile) -> dict[str, float]:
    """{layer: milliseconds} of {(node, operator): milliseconds} in the order of execution.

    A node that was fused or moved to another layout has a new name: it takes the first operation of its kind, in order,
    that no node has taken by name.
    """
    waiting = [(operation.node or operation.layer, operation) for operation in profile.schedule.operations]
    named = {name: operation.layer for name, operation in waiting}
    taken = {name for name, _ in nodes if name in named}
    left = [(operation.op, operation.layer) for name, operation in waiting if name not in taken]
    times: dict[str, float] = {}
    for (name, op), value in nodes.items():
        layer = named.get(name)
        if layer is None:
            kind = op.removeprefix("Fused").removeprefix("QLinear")
            at = next((at for at, (waits, _) in enumerate(left) if waits.rpartition(".")[2] == kind), None)
            layer = left.pop(at)[1] if at is not None else None
        if layer is not None:
            times[layer] = times.get(layer, 0.0) + value
    return times
