"""Integer networks open and give the same answers where the exact kernel is asked for, and where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer.runtime import exact


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Two layers of 8-bit integers, one scale per tensor."""
    torch.manual_seed(0)
    data = gs.load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 40), nn.ReLU(), nn.Linear(40, 10)).eval()
    gs.apply(model, [gs.Calibrate(samples=64), gs.Quantize(bits=8)], data)
    return gs.pack(model, tmp_path_factory.mktemp("exact") / "m.goss", data.batch(2)).path


@pytest.mark.parametrize(
    ("machine", "flags", "asked"),
    [
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("AMD64", "avx512_vnni", False),
        ("aarch64", "", False),
    ],
)
def test_the_exact_kernel_is_asked_for_where_the_fast_one_cuts_sums_off(
    machine, flags, asked, monkeypatch, tmp_path
):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n", encoding="utf-8")
    monkeypatch.setattr(exact.platform, "machine", lambda: machine)
    monkeypatch.setattr(exact, "Path", lambda name: info)
    exact.options.cache_clear()

    found = exact.options()
    exact.options.cache_clear()

    assert found == ((exact.EXACT,) if asked else ())


def test_both_kernels_open_the_file_and_agree(packed, monkeypatch):
    x = gs.load_data("digits").batch(64)
    fast = gs.open(packed)(x)
    monkeypatch.setattr(exact, "options", lambda: (exact.EXACT,))

    answer = gs.open(packed)(x)

    np.testing.assert_allclose(answer, fast, atol=0.05 * np.abs(fast).max())
    assert (answer.argmax(1) == fast.argmax(1)).mean() > 0.9
