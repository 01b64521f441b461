"""Header: the outlines of all tensors as bytes (see spec.md for the grammar).

Three texts come first, one item per line: the tensors' names, the signatures of their nodes, the coders. All
else is small numbers that refer to them, so that a dictionary compresses the texts and repetition the rest.

    signature = layout ":" fields ":" options ":" inner nodes         e.g. "sparse:gaps::values"

Raises: HeaderError, with the tensor's name, for whatever no writer would have written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import HeaderError
from . import varint
from .floats import ITEMSIZE
from .limits import MAX_DEPTH, MAX_DIMS, MAX_HEADER, MAX_OPTION, MAX_WIDTH
from .outline import FieldOutline, Outline, TensorOutline
from .tensor import DTYPES

_WORDS = r"(?:[a-z][a-z0-9_]*(?:,[a-z][a-z0-9_]*)*)?"
_SIGNATURE = re.compile(rf"[a-z][a-z0-9_]*:{_WORDS}:{_WORDS}:{_WORDS}")
_KINDS = (None, *range(1, MAX_WIDTH + 1), *ITEMSIZE)  # 1..16: bits of an integer; 17..19: a float type
T = TypeVar("T")
_SAME, _COUNTED, _NAMED = range(3)  # where the initialiser's name comes from


@dataclass(frozen=True)
class _Signature:
    layout: str
    fields: tuple[str, ...]
    options: tuple[str, ...]
    inner: tuple[str, ...]

    @classmethod
    def of(cls, node: Outline) -> _Signature:
        return cls(node.layout, tuple(node.fields), tuple(node.options), tuple(node.inner))

    def __str__(self) -> str:
        return ":".join([self.layout, *(",".join(part) for part in (self.fields, self.options, self.inner))])


def encode(tensors: Sequence[TensorOutline]) -> bytes:
    """The header's bytes."""
    nodes = [node for tensor in tensors for _, node in tensor.node.walk()]
    signatures = list(dict.fromkeys(str(_Signature.of(node)) for node in nodes))
    coders = list(
        dict.fromkeys(field.coder for node in nodes for field in node.fields.values() if field.width)
    )
    out = bytearray()
    for lines in ([tensor.name for tensor in tensors], signatures, coders):
        out += varint.text("\n".join(lines))
    for index, tensor in enumerate(tensors):
        source = _source(tensor, index)
        kind = DTYPES.index(tensor.dtype)
        out += varint.number(kind & 3 | source << 2 | (tensor.perm is not None) << 4 | kind >> 2 << 5)
        if source == _NAMED:
            out += varint.text(tensor.initializer)
        out += _encode_node(tensor.node, signatures, coders)
        for axis in tensor.perm or ():
            out += varint.number(axis)
    return bytes(out)


def decode(data: bytes) -> list[TensorOutline]:
    """The outlines, every number checked; what a layout demands is checked by `layouts.check`."""
    cursor = varint.Cursor(data, "header")
    names = _lines(cursor, "tensor name")
    signatures = [_parse_signature(line) for line in _lines(cursor, "signature")]
    coders = _lines(cursor, "coder")
    tensors = []
    for index, name in enumerate(names):
        cursor.place = f"header, tensor {name!r}"
        flags = cursor.number()
        kind, source, permuted = flags & 3 | flags >> 5 << 2, flags >> 2 & 3, flags >> 4 & 1
        if source > _NAMED or kind >= len(DTYPES):
            raise HeaderError(f"{cursor.place}: unknown flags {flags}.")
        initializer = cursor.text() if source == _NAMED else name if source == _SAME else f"w{index}"
        node = _decode_node(cursor, signatures, coders, 1)
        perm = tuple(cursor.number() for _ in node.shape) if permuted else None
        if perm is not None and sorted(perm) != list(range(len(perm))):
            raise HeaderError(f"{cursor.place}: {perm} is not a permutation of {len(perm)} axes.")
        tensors.append(TensorOutline(name, initializer, node, perm, DTYPES[kind]))
    if cursor.left:
        raise HeaderError(f"header: {cursor.left} bytes are left over after the last tensor.")
    initializers = [tensor.initializer for tensor in tensors]
    if len(set(initializers)) != len(initializers):
        raise HeaderError(f"header: two tensors feed the initialiser {_repeated(initializers)!r}.")
    return tensors


def _source(tensor: TensorOutline, index: int) -> int:
    if tensor.initializer == tensor.name:
        return _SAME
    return _COUNTED if tensor.initializer == f"w{index}" else _NAMED


def _encode_node(node: Outline, signatures: list[str], coders: list[str]) -> bytes:
    out = bytearray(varint.number(signatures.index(str(_Signature.of(node)))))
    out += varint.number(len(node.shape))
    for dim in node.shape:
        out += varint.number(dim)
    for field in node.fields.values():
        out += varint.number(_KINDS.index(field.width or field.dtype))
        out += varint.number(0 if field.count == node.numel else field.count + 1)
        if field.width:
            out += varint.number(coders.index(field.coder)) + varint.number(field.size)
    for value in node.options.values():
        out += varint.signed(value)
    for inner in node.inner.values():
        out += _encode_node(inner, signatures, coders)
    return bytes(out)


def _decode_node(
    cursor: varint.Cursor, signatures: list[_Signature], coders: list[str], depth: int
) -> Outline:
    if depth > MAX_DEPTH:
        raise HeaderError(f"{cursor.place}: nodes lie more than {MAX_DEPTH} deep.")
    signature = _at(cursor, signatures, "signature")
    dims = cursor.number()
    if dims > MAX_DIMS:
        raise HeaderError(f"{cursor.place}: {dims} dimensions; at most {MAX_DIMS} are allowed.")
    shape = tuple(cursor.number() for _ in range(dims))
    empty = Outline(signature.layout, shape)
    fields = {name: _decode_field(cursor, name, empty.numel, coders) for name in signature.fields}
    options = {name: cursor.signed() for name in signature.options}
    for name, value in options.items():
        if abs(value) > MAX_OPTION:
            raise HeaderError(f"{cursor.place}: option {name!r} is {value}; at most {MAX_OPTION} is allowed.")
    inner = {name: _decode_node(cursor, signatures, coders, depth + 1) for name in signature.inner}
    return Outline(signature.layout, shape, fields, inner, options)


def _decode_field(cursor: varint.Cursor, name: str, numel: int, coders: list[str]) -> FieldOutline:
    kind = cursor.number()
    if not 0 < kind < len(_KINDS):
        raise HeaderError(f"{cursor.place}: field {name!r} is of unknown kind {kind}.")
    counted = cursor.number()
    count = counted - 1 if counted else numel
    if kind <= MAX_WIDTH:
        coder = _at(cursor, coders, "coder")
        return FieldOutline(name, count, cursor.number(), width=kind, coder=coder)
    dtype = str(_KINDS[kind])
    return FieldOutline(name, count, count * ITEMSIZE[dtype], dtype=dtype)


def _at(cursor: varint.Cursor, items: Sequence[T], what: str) -> T:
    index = cursor.number()
    if index >= len(items):
        raise HeaderError(f"{cursor.place}: {what} {index} is used, but the header lists {len(items)}.")
    return items[index]


def _lines(cursor: varint.Cursor, what: str) -> list[str]:
    text = cursor.text(MAX_HEADER)
    lines = text.split("\n") if text else []
    for line in lines:
        if not line or len(line) > varint.MAX_TEXT:
            raise HeaderError(
                f"header: a {what} of {len(line)} characters; 1 to {varint.MAX_TEXT} are allowed."
            )
    if len(set(lines)) != len(lines):
        raise HeaderError(f"header: the {what} {_repeated(lines)!r} is listed twice.")
    return lines


def _parse_signature(line: str) -> _Signature:
    if not _SIGNATURE.fullmatch(line):
        raise HeaderError(f"header: {line!r} is no signature (layout:fields:options:inner nodes).")
    layout, *parts = line.split(":")
    lists = [tuple(part.split(",")) if part else () for part in parts]
    for words in lists:
        if len(set(words)) != len(words):
            raise HeaderError(f"header: signature {line!r} names {_repeated(words)!r} twice.")
    return _Signature(layout, *lists)


def _repeated(items: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(item for item in items if item in seen or seen.add(item))  # type: ignore[func-returns-value]
