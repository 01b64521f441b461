"""Metadata: one JSON object, written compactly and read strictly.

Strictly means: UTF-8, at most 1 MiB, at most 32 levels, no name twice in one object, no NaN or infinity,
whole numbers of at most 64 digits. An empty object takes no byte.

Raises: HeaderError when reading, ArtifactError when something cannot be written as JSON.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import ArtifactError, HeaderError
from .limits import MAX_METADATA, MAX_METADATA_DEPTH
from .varint import decoded

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|([\[{])|([\]}])', re.DOTALL)


def encode(metadata: Mapping[str, Any]) -> bytes:
    if not metadata:
        return b""
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        raw = text.encode()
    except (TypeError, ValueError, RecursionError) as error:  # ValueError: NaN, a cycle, a lone surrogate
        raise ArtifactError(f"metadata: {error}. Use plain, finite JSON values.") from error
    try:
        decode(raw)
    except HeaderError as error:
        raise ArtifactError(f"{error} Such a file could not be read again.") from error
    return raw


def decode(raw: bytes) -> dict[str, Any]:
    if not raw:
        return {}
    if len(raw) > MAX_METADATA:
        raise HeaderError(f"metadata: {len(raw)} bytes; at most {MAX_METADATA} are allowed.")
    text = decoded(raw, "metadata")
    if _depth(text) > MAX_METADATA_DEPTH:
        raise HeaderError(f"metadata: nested more than {MAX_METADATA_DEPTH} deep.")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        raise HeaderError(f"metadata: not JSON ({error}).") from error
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise HeaderError("metadata: half of a surrogate pair.") from error
    if not isinstance(value, dict):
        raise HeaderError(f"metadata: holds {type(value).__name__}, but must be an object.")
    return value


def _depth(text: str) -> int:
    """How deeply lists and objects lie inside one another; brackets inside strings do not count."""
    steps = (bool(match[1]) - bool(match[2]) for match in _STRING_OR_BRACKET.finditer(text))
    return max(itertools.accumulate(steps), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise HeaderError(f"metadata: {twice!r} stands twice in one object.")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 64:
        raise HeaderError(f"metadata: a number of {len(digits)} digits; at most 64 are allowed.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise HeaderError("metadata: a number is too large for a float.")
    return value


def _constant(name: str) -> NoReturn:
    raise HeaderError(f"metadata: {name} is not a JSON value.")
