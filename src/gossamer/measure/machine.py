"""The machine a figure was measured on, the versions it was measured with, and the day.

No host name, user or path is recorded: a report may be published.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("gossamer", "numpy", "onnxruntime", "zstandard", "torch", "onnx", "onnxscript", "accelerate")
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "amx_int8", "asimd", "asimddp", "i8mm")


def describe() -> dict[str, str | int | float | list[str]]:
    """CPU model, cores this process may use, memory, vector extensions, operating system, Python."""
    cpu, flags = _cpu()
    found: dict[str, str | int | float | list[str]] = {
        "cpu": cpu,
        "cores": _usable_cores(),
        "features": [name for name in _FEATURES if name in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if memory := _memory_gb():
        found["memory_gb"] = memory
    return found


def versions() -> dict[str, str]:
    """Installed versions of what a figure depends on; nothing is imported to find them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def today() -> str:
    """Now, in UTC, to the second: 2026-01-31T12:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cpu() -> tuple[str, set[str]]:
    """Model name and feature flags; /proc/cpuinfo where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or fields.get("Hardware") or platform.processor() or platform.machine()
    return name, set((fields.get("flags") or fields.get("Features") or "").split())


def _usable_cores() -> int:
    """Cores this process may run on (a container may hold fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    """Physical memory in GB (10^9 bytes), where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
