"""run: one run of a graph in ONNX Runtime, to read off shapes that only running can tell.

Inputs are drawn from N(0, 1); integers and truths are 1, and 0 in a second try (an index may have to be). The
graph is not optimized, so every value in it exists.
Raises: whatever ONNX Runtime raises (its errors share no base class).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnxruntime
from onnx import ModelProto, ValueInfoProto, helper

from ... import artifact
from ...runtime import feed
from .file import Model, Value

SILENT = 4  # ONNX Runtime's log level
CPU = ("CPUExecutionProvider",)
FOLDER = "session.model_external_initializers_file_folder_path"


def observe(
    model: Model, proto: ModelProto, names: Iterable[str], inputs: Mapping[str, Value]
) -> dict[str, Value]:
    """Shapes and types of the named values; those that are no tensors are left out."""
    wanted = list(dict.fromkeys(names))
    session = _session(model, _watched(model, proto, wanted))
    for integers in (1, 0):
        try:
            results = session.run_with_ort_values(wanted, _feeds(inputs, integers))
            break
        except Exception:
            if not integers or not _has_integers(inputs):
                raise
    return {
        name: Value(tuple(result.shape()), result.element_type())
        for name, result in zip(wanted, results, strict=True)
        if result.is_tensor()
    }


def _watched(model: Model, proto: ModelProto, names: Iterable[str]) -> ModelProto:
    """The graph with these values as outputs and the initialisers of its own file back in it."""
    whole = ModelProto()
    whole.CopyFrom(proto)
    body = whole.graph
    del body.input[:], body.output[:], body.initializer[:], body.value_info[:]
    body.input.extend(port for port in proto.graph.input if port.name not in model.initializers)
    body.output.extend(ValueInfoProto(name=name) for name in names)
    for name, tensor in model.held.items():
        body.initializer.append(tensor)
        body.initializer[-1].name = name
    body.sparse_initializer.extend(model.sparse)
    return whole


def _session(model: Model, proto: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = proto.SerializeToString()
    if model.packed is not None:
        with _Regraphed(model.packed, data) as reader:
            return feed.create(reader, options, CPU)
    if model.folder is not None:
        options.add_session_config_entry(FOLDER, str(model.folder))
    return onnxruntime.InferenceSession(data, options, providers=list(CPU), enable_fallback=0)


class _Regraphed(artifact.Reader):
    """A packed file with another graph."""

    def __init__(self, source: artifact.reader.Source, changed: bytes) -> None:
        super().__init__(source)
        self._changed = changed

    @property
    def graph(self) -> bytes:
        return self._changed


def _has_integers(inputs: Mapping[str, Value]) -> bool:
    return any(helper.tensor_dtype_to_np_dtype(value.elem_type).kind in "iub" for value in inputs.values())


def _feeds(inputs: Mapping[str, Value], integers: int) -> dict[str, onnxruntime.OrtValue]:
    rng = np.random.default_rng(0)
    feeds = {}
    for name, value in inputs.items():
        dtype = helper.tensor_dtype_to_np_dtype(value.elem_type)
        ordinary = dtype.kind in "fiub"
        floats = dtype.kind == "f" or not ordinary  # bfloat16 and smaller: numpy has no kind for them
        drawn = rng.standard_normal(value.shape) if floats else np.full(value.shape, integers)
        array = np.asarray(drawn.astype(dtype))
        feeds[name] = (
            onnxruntime.OrtValue.ortvalue_from_numpy(array)
            if ordinary
            else onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array.view(f"u{array.itemsize}"), value.elem_type
            )
        )
    return feeds
