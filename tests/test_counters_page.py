"""The page on counters shows what was measured, and every disagreement on it is explained."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = json.loads((ROOT / "benchmarks" / "results" / "counters.json").read_text(encoding="utf-8"))


def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("counters", ROOT / "benchmarks" / "counters.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "counters", module)  # dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


def test_the_page_is_filled_from_the_results(monkeypatch):
    text = (ROOT / "docs" / "counters.md").read_text(encoding="utf-8")

    assert benchmark(monkeypatch).filled(text, RESULT) == text
    assert f"{RESULT['networks'][0]['macs']:,}" in text


def test_the_reasons_sum_to_every_difference():
    for row in RESULT["networks"]:
        for tool in row["tools"].values():
            assert tool["macs"] - row["macs"] == tool["difference"] == sum(tool["reasons"].values())


def test_every_claim_holds():
    assert all(claim["holds"] for claim in RESULT["claims"])
