"""exact: whether ONNX Runtime's 8-bit kernels are exact on this processor, or need another kernel.

On x86 processors with neither AVX-VNNI nor AVX512-VNNI, the sum of two products of 8 bits is cut off at 16 bits. The
session option `session.x64quantprecision` chooses an exact kernel; where it is not needed it costs a third of the speed of
a small network, so it is set only where it is. Where the processor cannot be asked, exactness comes first.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

EXACT = ("session.x64quantprecision", "1")
VNNI = {"avx_vnni", "avx512_vnni"}


@cache
def options() -> tuple[tuple[str, str], ...]:
    """The session options that make integer kernels exact here."""
    return () if _has_exact_kernels() else (EXACT,)


def _has_exact_kernels() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return True
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
    return bool(flags & VNNI)
