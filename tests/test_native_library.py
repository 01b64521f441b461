"""The native library: it is found, it fits this package, and it runs on any variant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer import native
from gossamer.errors import CodecError, NativeError, OptionError


def test_the_library_speaks_this_package_s_interface() -> None:
    assert native.load().gossamer_abi() == native.ABI
    assert native.path().is_file()


def test_a_variant_can_be_capped_and_freed() -> None:
    best = native.use_isa("")
    try:
        assert native.use_isa("portable") == "portable"
        assert native.use_isa("avx512") == best
        order = native.VARIANTS.index
        for name in native.VARIANTS:
            assert order(native.use_isa(name)) <= min(order(name), order(best))
        with pytest.raises(OptionError, match="'sse9'"):
            native.use_isa("sse9")
    finally:
        assert native.use_isa("") == best


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_forces_a_variant() -> None:
    ran = in_a_process("from gossamer import native; print(native.isa())", GOSSAMER_ISA="portable")
    assert ran.stdout.strip() == "portable", ran.stderr


def test_the_coders_need_no_torch() -> None:
    ran = in_a_process(
        "import sys, numpy as np; from gossamer import codec; codec.choose(np.arange(9), 4);"
        "print('torch' in sys.modules)"
    )
    assert ran.stdout.strip() == "False", ran.stderr


def test_a_missing_library_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOSSAMER_NATIVE", str(tmp_path / "nothing.so"))
    with pytest.raises(NativeError, match=r"nothing\.so.*pip install"):
        native.path()


def test_a_file_that_is_no_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "libgossamer.so"
    fake.write_bytes(b"not a library")
    monkeypatch.setenv("GOSSAMER_NATIVE", str(fake))
    with pytest.raises(NativeError, match="not a library of this package"):
        native.load.__wrapped__()


def test_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    with pytest.raises(NativeError, match="speaks interface"):
        native.load.__wrapped__()


def test_error_codes_become_errors() -> None:
    assert native.checked(7, "here") == 7
    with pytest.raises(CodecError, match="here: the payload ends"):
        native.checked(native.TRUNCATED, "here")
    with pytest.raises(MemoryError, match="here"):
        native.checked(native.NO_MEMORY, "here")
