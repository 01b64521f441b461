"""Writer: an `Artifact` as the bytes of a .goss file, and those bytes safely on disk."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import numpy as np

from .. import codec
from ..errors import ArtifactError
from . import head, header, layouts
from .floats import to_bytes as floats_to_bytes
from .head import checksum
from .limits import MAX_WIDTH
from .outline import FieldOutline, Outline, TensorOutline
from .stored import Field, Floats, Stored
from .tensor import DTYPES, INTEGERS, Artifact, Tensor, rebuild


def to_bytes(artifact: Artifact) -> bytes:
    """The whole file. Raises ArtifactError for a tensor that no reader would accept."""
    payloads: list[bytes] = []
    outlines = [_outline(tensor, payloads) for tensor in artifact.tensors]
    described = header.encode(outlines)
    if header.decode(described) != outlines:  # names that differ only where the header cannot tell them apart
        raise ArtifactError("the tensors' names or options would not be read again as they are.")
    start = head.encode(outlines, artifact.graph, artifact.metadata)
    parts = [start]
    for payload in payloads:
        parts += [payload, checksum(payload)]
    return b"".join(parts)


def write(path: str | os.PathLike[str], artifact: Artifact) -> int:
    """Write the file in one step and return its bytes: `path` holds the old file or the whole new one."""
    data = to_bytes(artifact)
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise ArtifactError(
            f"{target}: {len(data)} bytes could not be written ({error.strerror or error}). "
            f"Nothing was changed; check the folder and its free space."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone, when all went well
            part.unlink()
    return len(data)


def _outline(tensor: Tensor, payloads: list[bytes]) -> TensorOutline:
    place = f"tensor {tensor.name!r}"
    if tensor.dtype not in DTYPES:
        raise ArtifactError(f"{place}: unknown dtype {tensor.dtype!r}; expected one of {', '.join(DTYPES)}.")
    if not tensor.name or not tensor.initializer or "\n" in tensor.name:
        raise ArtifactError(f"{place}: a tensor and its initialiser need a name of one line.")
    axes = tuple(range(len(tensor.stored.shape)))
    if tensor.perm is not None and tuple(sorted(tensor.perm)) != axes:
        raise ArtifactError(f"{place}: perm {tensor.perm} is not a permutation of the axes {axes}.")
    node = _node(tensor.stored, place, payloads)
    layouts.check(node, place)
    layouts.verify(tensor.stored, place)
    if tensor.dtype in INTEGERS:
        rebuild(tensor)  # raises where a value does not fit
    perm = None if tensor.perm is None else tuple(int(axis) for axis in tensor.perm)
    return TensorOutline(tensor.name, tensor.initializer, node, perm, tensor.dtype)


def _node(stored: Stored, place: str, payloads: list[bytes]) -> Outline:
    fields = {
        name: _field(name, field, f"{place}, {name}", payloads) for name, field in stored.fields.items()
    }
    inner = {name: _node(node, f"{place}, {name}", payloads) for name, node in stored.inner.items()}
    shape = tuple(int(dim) for dim in stored.shape)
    options = {name: int(value) for name, value in stored.options.items()}
    return Outline(stored.layout, shape, fields, inner, options)


def _field(name: str, field: Field, place: str, payloads: list[bytes]) -> FieldOutline:
    if isinstance(field, Floats):
        payloads.append(floats_to_bytes(field.values, field.dtype))
        return FieldOutline(name, int(np.size(field.values)), len(payloads[-1]), dtype=field.dtype)
    values = np.ascontiguousarray(field.values).ravel()
    if not 1 <= field.width <= MAX_WIDTH:
        raise ArtifactError(f"{place}: integers of {field.width} bits; 1 to {MAX_WIDTH} are allowed.")
    if values.dtype.kind not in "iu" and values.size:
        raise ArtifactError(f"{place}: holds {values.dtype}, but must hold integers.")
    if values.size and (int(values.min()) < 0 or int(values.max()) >= 2**field.width):
        raise ArtifactError(f"{place}: values {values.min()}..{values.max()} do not fit {field.width} bits.")
    coded = codec.choose(values.astype(np.uint8 if field.width <= 8 else np.uint16, copy=False), field.width)
    payloads.append(coded.payload)
    return FieldOutline(name, values.size, len(coded.payload), width=field.width, coder=coded.tag)
