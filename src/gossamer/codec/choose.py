"""The cheapest coder for a field, by the exact size of its payload.

Ties go to the coder that decodes faster, which is the order of CODERS. `Adaptive` takes part up to
`Adaptive.LIMIT` symbols, as it decodes slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import CodecError, nearest
from .adaptive import Adaptive
from .bitpack import Bitpack
from .huffman import Huffman
from .rans import Rans
from .symbols import Buffer, prepare


class Coder(Protocol):
    """What every coder offers; `tag` names it in the file."""

    tag: str

    @staticmethod
    def encode(symbols: np.ndarray, width: int) -> bytes: ...

    @staticmethod
    def decode(payload: Buffer, count: int, width: int) -> np.ndarray: ...

    @staticmethod
    def cost_bytes(symbols: np.ndarray, width: int) -> int: ...


CODERS: tuple[type[Coder], ...] = (Bitpack, Huffman, Rans, Adaptive)  # fastest decoder first
_BY_TAG = {coder.tag: coder for coder in CODERS}


@dataclass(frozen=True)
class Coded:
    """A coded field: which coder wrote it, and its bytes."""

    tag: str
    payload: bytes


def _offered(count: int) -> list[type[Coder]]:
    return [coder for coder in CODERS if coder is not Adaptive or count <= Adaptive.LIMIT]


def costs(symbols: np.ndarray, width: int) -> dict[str, int]:
    """The exact payload size in bytes of every coder on offer, by tag."""
    flat = prepare(symbols, width)
    return {coder.tag: coder.cost_bytes(flat, width) for coder in _offered(flat.size)}


def choose(symbols: np.ndarray, width: int) -> Coded:
    """The field coded by the cheapest coder."""
    flat = prepare(symbols, width)
    payloads: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    for coder in _offered(flat.size):
        if coder in (Bitpack, Huffman):
            sizes[coder.tag] = coder.cost_bytes(flat, width)
        else:  # their cost is their payload's length: keep it
            payloads[coder.tag] = coder.encode(flat, width)
            sizes[coder.tag] = len(payloads[coder.tag])
    tag = min(sizes, key=lambda name: sizes[name])  # the first of equals, and CODERS goes from fast to slow
    return Coded(tag, payloads[tag] if tag in payloads else _BY_TAG[tag].encode(flat, width))


def decode(tag: str, payload: Buffer, count: int, width: int) -> np.ndarray:
    """The symbols of a field; `tag` as in `Coded`."""
    if tag not in _BY_TAG:
        raise CodecError(f"coder {tag!r} is unknown. {nearest(tag, _BY_TAG)}")
    return _BY_TAG[tag].decode(payload, count, width)
