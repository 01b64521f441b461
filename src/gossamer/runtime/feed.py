"""feed: how the decoded weights get into ONNX Runtime.

    in memory   the arrays are handed over; ONNX Runtime copies them into the layout its kernels want, and
                they are freed then: for a moment every weight is there twice, and the largest three times
    by a file   from SPILL bytes on, each array is decoded, written to a temporary file and freed; ONNX
                Runtime maps the file, which is then deleted: a peak of 408 MB instead of 744 for 61 million
                weights (where no such file can be written, memory is used)

Either way an open session holds each weight once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from .. import artifact, native
from . import exact, graph, lower, plain

SPILL = 2**27
PAGE = 4096


def create(
    reader: artifact.Reader,
    options: ort.SessionOptions,
    providers: Sequence[str],
    plan: lower.Plan | None = None,
) -> ort.InferenceSession:
    """A session of the reader's graph with its weights, or of what `plan` made of it."""
    plan = plan or lower.dense(reader)
    stubs = plan.initializers
    if plan.custom:
        options.register_custom_ops_library(str(native.path()))
    if exact.options() and any(stub.dtype == "int8" for stub in stubs):
        for option in exact.options():
            options.add_session_config_entry(*option)
        # that kernel changes initialisers, which ONNX Runtime allows only for those inside the graph
        return ort.InferenceSession(b"".join(plain.serialized(reader)), options, providers=list(providers))
    if sum(stub.size_bytes for stub in stubs) >= SPILL:
        try:
            with tempfile.TemporaryDirectory(prefix="gossamer-", ignore_cleanup_errors=True) as folder:
                model = _spill(plan, Path(folder))
                return ort.InferenceSession(str(model), options, providers=list(providers))
        except OSError:  # no space or no right to write: then in memory
            pass
    declared = graph.with_stubs(plan.model, stubs)
    arrays = list(plan.arrays())  # ONNX Runtime reads them until the session exists
    values = [
        ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, graph.DATA_TYPES[stub.dtype])
        if stub.dtype == "bfloat16"
        else ort.OrtValue.ortvalue_from_numpy(array)
        for stub, array in zip(stubs, arrays, strict=True)
    ]
    if values:
        options.add_external_initializers([stub.name for stub in stubs], values)
    return ort.InferenceSession(declared, options, providers=list(providers))


def _spill(plan: lower.Plan, folder: Path) -> Path:
    """Write the weights beside a graph that refers to them; the path of the graph."""
    offsets: list[int | None] = []
    with (folder / graph.WEIGHTS).open("wb") as out:
        for array in plan.arrays():
            out.write(bytes(-out.tell() % PAGE))  # a mapped weight starts on a page
            offsets.append(out.tell())
            out.write(array.data)
    model = folder / "model.onnx"
    model.write_bytes(graph.with_stubs(plan.model, plan.initializers, offsets))
    return model
