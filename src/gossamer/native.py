"""The native library: where it lies, what it exports, and what its error codes mean.

`load()` returns libgossamer as a ctypes library with every argument type declared. It is looked for in this
order: the file named by the environment variable GOSSAMER_NATIVE, the folder of this package, then a
`gossamer` folder in any place Python imports from (an editable install keeps the library there, away from
the sources).

The environment variable GOSSAMER_ISA, one of VARIANTS, caps the variant that runs; `use_isa` does so later. A
name of another architecture runs the best variant before it in that order.

Raises: NativeError when no library is found or it belongs to another version of this package.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from .errors import CodecError, NativeError, OptionError

ABI = 1
VARIANTS = ("portable", "neon", "avx2", "avx512")  # neon on ARM, the two others on x86
NAMES = {"darwin": "libgossamer.dylib", "win32": "libgossamer.dll"}

TRUNCATED, CORRUPT, TRAILING, OUT_OF_RANGE, NO_MEMORY, UNSORTED = -2, -3, -4, -5, -6, -7
_MEANING = {
    -1: "an argument no caller should pass",
    TRUNCATED: "the payload ends before the last symbol",
    CORRUPT: "a table or state that no encoder wrote",
    TRAILING: "bytes are left after the last symbol",
    OUT_OF_RANGE: "a value beyond its limit",
    UNSORTED: "positions that do not strictly increase",
}

_pointer, _size, _width = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_out = ctypes.POINTER(ctypes.c_void_p)
_encode = (_pointer, _size, _width, _out)
_decode = (_pointer, _size, _pointer, _size, _width)
_count = (_pointer, _size, _width)
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "bitpack_encode": (_pointer, _size, _width, _pointer),
    "bitpack_decode": _decode,
    "huffman_encode": _encode,
    "huffman_cost": _count,
    "huffman_table_bytes": _count,
    "huffman_lengths": (_pointer, _width, _pointer),
    "huffman_decode": _decode,
    "rans_encode": _encode,
    "rans_table_bytes": _count,
    "rans_decode": _decode,
    "adaptive_encode": _encode,
    "adaptive_decode": _decode,
    "histogram": (_pointer, _size, _width, _pointer),
    "gaps_count": (_pointer, _size, _size, _width),
    "gaps_encode": (_pointer, _size, _size, _width, _pointer, _size),
    "gaps_entries": (_pointer, _size, _width, _size),
    "gaps_decode": (_pointer, _size, _width, _size, _pointer, _size),
    "gaps_histogram": (_pointer, _size, _size, _pointer),
    "scatter": (_pointer, _size, _width, _pointer, _size, _pointer, _size),
    "lookup": (_pointer, _size, _width, _pointer, _size, _pointer),
    "sparse_pack": (
        *(_pointer, _pointer, _size, _size, _size, ctypes.c_int32, _pointer, _size),
        *(_pointer, _pointer, _size),
    ),
}


def candidates() -> Iterator[Path]:
    """Every place the library may lie, in the order they are tried."""
    if override := os.environ.get("GOSSAMER_NATIVE"):
        yield Path(override)
        return
    name = NAMES.get(sys.platform, "libgossamer.so")
    yield Path(__file__).parent / name
    for folder in [*sys.path, sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]:
        yield Path(folder) / "gossamer" / name


def path() -> Path:
    """The file of the native library."""
    for candidate in candidates():
        if candidate.is_file():
            return candidate.resolve()
    searched = ", ".join(dict.fromkeys(str(c) for c in candidates()))
    raise NativeError(
        f"native library: none of these files exists: {searched}. Install the package (`pip install .` "
        f"builds the library) or set GOSSAMER_NATIVE to its file."
    )


@cache
def load() -> ctypes.CDLL:
    """The native library with its argument types declared; loaded once."""
    place = path()
    try:
        library = ctypes.CDLL(str(place))
        library.gossamer_abi.restype = ctypes.c_int32
        found = library.gossamer_abi()
    except (OSError, AttributeError) as error:
        raise NativeError(
            f"{place}: not a library of this package ({error}). Install the package again."
        ) from error
    if found != ABI:
        raise NativeError(
            f"{place}: speaks interface {found}, but this package expects {ABI}. Install the package again, "
            f"so that library and Python code come from the same version."
        )
    library.gossamer_isa.restype = ctypes.c_char_p
    library.gossamer_set_isa.argtypes = (ctypes.c_char_p,)
    library.gossamer_free.argtypes, library.gossamer_free.restype = (_pointer,), None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, f"gossamer_{name}")
        function.argtypes, function.restype = arguments, ctypes.c_int64
    return library


def isa() -> str:
    """The variant that runs now, one of VARIANTS."""
    name: bytes = load().gossamer_isa()
    return name.decode()


def use_isa(name: str) -> str:
    """Cap the variant at `name` ("" lifts the cap) and return the one that runs; all give the same bytes."""
    if load().gossamer_set_isa(name.encode()) != 0:
        known = ", ".join(map(repr, VARIANTS))
        raise OptionError(f"variant: received {name!r}, expected {known} or ''.")
    return isa()


def address(array: np.ndarray) -> int:
    """Where a C-contiguous array begins."""
    return int(array.ctypes.data)


def checked(code: int, place: str) -> int:
    """The code itself when it is a count or size, else the error it stands for."""
    if code >= 0:
        return int(code)
    if code == NO_MEMORY:
        raise MemoryError(f"{place}: not enough memory")
    raise CodecError(
        f"{place}: {_MEANING.get(code, f'error {code}')}. The data were changed or cut; store them again."
    )


def written(function: str, symbols: np.ndarray, width: int) -> bytes:
    """The payload an encoder of the library writes for checked symbols (see codec.symbols)."""
    library, out = load(), ctypes.c_void_p()
    size = getattr(library, f"gossamer_{function}")(address(symbols), symbols.size, width, ctypes.byref(out))
    checked(size, function)
    try:
        return ctypes.string_at(out, size)
    finally:
        library.gossamer_free(out)
