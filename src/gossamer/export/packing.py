"""pack: a torch model -> model.goss, reopened and compared before it is called done.

    example -> reference outputs -> formats baked into dense weights -> graph -> simplify -> match -> norms
    -> settle -> integers -> strip -> file -> reopened by the torch-free runtime -> its outputs against the reference

The model itself is only read: its mode, hooks, gradients, device and the random state stay as they are.

Raises: ModelError when the model cannot be called or holds NaN; ExportError when it cannot be traced, when
a weight would lose its format, or when the reopened file gives other outputs (the file is removed then).
"""

from __future__ import annotations

import copy
import gc
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import artifact, formats
from ..errors import ExportError, ModelError, OptionError
from .codes import Codes, codes_of
from .dither import reach, rounding
from .example import Example, call, named_outputs
from .guard import keep_floats
from .integers import use_integers
from .match import Weight, absorb_transposes, array, find, merge_copies, weights
from .nbits import use_nbits
from .norms import merge_norms
from .settle import settle
from .simplify import simplify
from .strip import rename, serialize
from .trace import trace
from .verify import verify

RESERVED = ("preprocess", "labels", "notes")
LARGE = 2**22  # weights from which memory matters more than a tenth of a second
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Packed:
    """What packing gave: the file, its size, and how far its outputs are from the model's on the example."""

    path: Path
    size_bytes: int
    max_difference: float
    notes: tuple[str, ...] = ()

    def __int__(self) -> int:
        return self.size_bytes


def pack(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    preprocess: Any = None,
    labels: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    allow_dense: bool = False,
) -> Packed:
    """Write `model` to `path` as one .goss file.

    example: a tensor or array, a tuple of them, or a dict of keyword arguments
    preprocess: a mapping, or an object with `to_dict()`
    allow_dense: a weight whose format cannot be kept is stored dense, with a note, instead of raising
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ExportError(f"{target}: the folder {str(target.parent)!r} does not exist. Create it first.")
    about = _metadata(metadata, preprocess, labels)
    _refuse_nan(model)
    call_with = Example.of(model, example, input_names)
    rounding(model)  # raises while a quantizer observes, which a call would change
    expected = named_outputs(call(model, call_with), output_names)
    dither = reach(model, call_with, expected)
    graph, tensors, notes = _graph(model, call_with, tuple(expected), dynamic_batch, allow_dense)
    if notes:
        about["notes"] = list(notes)
    if sum(math.prod(item.stored.shape) for item in tensors) > LARGE:
        gc.collect()  # the exporter's cycles still hold dense weights, and reopening needs room
    half = any(value.dtype in _HALF for value in model.parameters())
    packed = artifact.Artifact(graph, tensors, about)
    size, difference = _write(target, packed, call_with, expected, half, dither)
    return Packed(target, size, difference, notes)


def _graph(
    model: nn.Module, example: Example, outputs: Sequence[str], dynamic_batch: bool, allow_dense: bool
) -> tuple[bytes, tuple[artifact.Tensor, ...], tuple[str, ...]]:
    """The stripped graph, its coded weights, and what could not be done as asked."""
    stored = formats.stored(model)
    plain = _on_cpu(formats.baked(model))
    named = plain.state_dict()
    dense = {name: named[name].detach().numpy() for name in stored}
    traced = trace(plain, example, dynamic_batch=dynamic_batch)
    notes = list(traced.notes)
    onnx_model = traced.model
    graph = onnx_model.graph
    if len(graph.outputs) != len(outputs) or len(graph.inputs) != len(example.names):
        raise ExportError(
            f"the graph has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, but the model has "
            f"{len(example.names)} and {len(outputs)}. Pass and return each tensor once."
        )
    simplify(onnx_model)
    found, lost = find(onnx_model, dense, traced.unused)
    notes += [
        f"weight {name} is not stored: forward does not use it" for name in dense if name in traced.unused
    ]
    if lost and not allow_dense:
        name, reason = next(iter(lost.items()))
        raise ExportError(
            f"weight {name!r} ({stored[name].layout}) would lose its format: {reason}. Let forward use the "
            "weight as it is, or pack with allow_dense=True."
        )
    notes += [
        f"weight {name} could not be stored as {stored[name].layout}: {why}" for name, why in lost.items()
    ]
    merge_copies(onnx_model, found)
    merged = merge_norms(onnx_model, found)
    absorb_transposes(onnx_model, found)
    quantized = settle(onnx_model)
    if quantized:
        notes += use_integers(onnx_model, found, lambda name: _codes(model, name, dense[name]))
    notes += use_nbits(onnx_model, found, stored)
    if quantized:
        keep_floats(onnx_model)
    kept = weights(onnx_model, found, {*named, *merged})
    tensors = tuple(_tensor(weight, stored) for weight in kept)
    names = rename(onnx_model, kept, example.names, outputs)
    tensors = tuple(
        artifact.Tensor(item.name, name, item.stored, item.perm, item.dtype)
        for item, name in zip(tensors, names, strict=True)
    )
    return serialize(onnx_model, kept), tensors, tuple(notes)


def _tensor(weight: Weight, stored: Mapping[str, artifact.Stored]) -> artifact.Tensor:
    """The coded weight; one without a format is stored dense, in the model's own orientation."""
    if weight.stored is not None:
        kept = weight.stored
    elif weight.name in stored:
        kept = stored[weight.name]
    else:
        values = array(weight.value)
        if weight.perm is not None:
            values = values.transpose(np.argsort(weight.perm))
        kind = weight.dtype if weight.dtype in ("float16", "bfloat16") else "float32"
        floats = artifact.Floats(np.asarray(values, np.float32), kind)
        kept = artifact.Stored("dense", tuple(values.shape), {"values": floats})
    return artifact.Tensor(weight.name, weight.value.name or "", kept, weight.perm, weight.dtype)


def _codes(model: nn.Module, name: str, dense: np.ndarray) -> Codes:
    with torch.no_grad():
        return codes_of(formats.attached(model)[name].format, formats.parts_of(model, name), dense)


def _write(
    target: Path,
    packed: artifact.Artifact,
    example: Example,
    expected: Mapping[str, torch.Tensor],
    half: bool,
    dither: Mapping[str, float],
) -> tuple[int, float]:
    """Write beside the target, reopen, compare, then move into place; (size in bytes, largest difference)."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        artifact.write(partial, packed)
        difference = verify(partial, example.arrays, expected, half=half, dither=dither)
        partial.chmod(0o666 & ~_umask())
        size = partial.stat().st_size
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return size, difference


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _metadata(
    metadata: Mapping[str, Any] | None, preprocess: Any, labels: Sequence[str] | None
) -> dict[str, Any]:
    about = dict(metadata or {})
    for name in RESERVED:
        if name in about:
            raise OptionError(
                f"metadata: {name!r} is written by pack itself. Use another name, or its own option."
            )
    if preprocess is not None:
        given = preprocess.to_dict() if hasattr(preprocess, "to_dict") else preprocess
        if not isinstance(given, Mapping):
            raise OptionError(
                f"preprocess is {type(given).__name__}, but must be a mapping or have to_dict()."
            )
        about["preprocess"] = dict(given)
    if labels is not None:
        about["labels"] = [str(label) for label in labels]
    return about


def _refuse_nan(model: nn.Module) -> None:
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and bool(torch.isnan(value).any()):
                count = int(torch.isnan(value).sum())
                raise ModelError(
                    f"{name}: {count} of {value.numel()} values are NaN. "
                    "Train or load the model again before packing."
                )


def _on_cpu(model: nn.Module) -> nn.Module:
    """The model on the CPU; one on another device is copied, because its tensors may be the caller's own."""
    if all(value.device.type == "cpu" for value in [*model.parameters(), *model.buffers()]):
        return model
    return copy.deepcopy(model).cpu()
