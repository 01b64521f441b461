"""Figures: sizes, accuracy with its interval, latency, machine, and the fresh process without torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import zstandard
from scipy import stats
from torch import nn

import gossamer as gs
from gossamer import measure
from gossamer.data import Preprocess, Split
from gossamer.errors import DataError, MeasureError, ModelError
from gossamer.measure import Accuracy, Latency, latency


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A small network on the bundled digits, packed with its preprocessing, and the torch model."""
    torch.manual_seed(0)
    data = gs.load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    path = tmp_path_factory.mktemp("packed") / "model.goss"
    gs.pack(model, path, data.batch(2), preprocess=data.preprocess, labels=data.classes)
    return path, model, data


# sizes


def test_weights_count_parameters_and_running_statistics_at_four_bytes():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))

    size = measure.weights(model)

    assert size.parameters == 8 * 3 * 9 + 2 * 8
    assert size.buffers == 2 * 8  # the integer counter of the norm is no weight
    assert size.bytes == 4 * (size.parameters + size.buffers)


def test_tied_weights_count_once():
    model = nn.ModuleDict({"read": nn.Embedding(50, 4), "write": nn.Linear(4, 50, bias=False)})
    model["write"].weight = model["read"].weight

    assert measure.weights(model).parameters == 50 * 4


def test_half_precision_weights_are_compared_as_float32():
    assert measure.weights(nn.Linear(10, 10).half()).bytes == 4 * 110


def test_zstd_bytes_are_those_of_one_stream_at_level_19():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 10))
    raw = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())

    assert measure.weights(model).zstd_bytes == pytest.approx(len(zstandard.compress(raw, 19)), abs=16)


def test_a_model_without_weights_is_refused():
    with pytest.raises(MeasureError, match="ReLU: the model has no weights"):
        measure.weights(nn.ReLU())


def test_file_bytes_are_those_of_the_file_system(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1234)

    assert measure.file_bytes(path) == path.stat().st_size == 1234
    with pytest.raises(MeasureError, match="no such file"):
        measure.file_bytes(tmp_path / "missing")


# accuracy


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (1, 3), (987, 1000), (9842, 10_000)])
def test_the_interval_is_that_of_wilson(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")

    found = Accuracy.of(correct, total)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.value == correct / total


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(MeasureError, match="expected 0 <= correct <= total"):
        Accuracy.of(correct, total)


def split(scores: np.ndarray, labels: list[int]) -> Split:
    return Split(scores.astype(np.float32), np.array(labels, np.int64), "test")


def test_accuracy_counts_the_largest_output_over_ragged_batches():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(1003, 7))
    labels = rng.integers(0, 7, 1003)
    by_hand = sum(
        int(max(range(7), key=row.__getitem__)) == label for row, label in zip(scores, labels, strict=True)
    )

    found = measure.accuracy(lambda x: x, split(scores, labels.tolist()), Preprocess(), batch=100)

    assert (found.correct, found.total) == (by_hand, 1003)


def test_of_several_outputs_the_first_counts():
    scores = np.eye(3)

    found = measure.accuracy(
        lambda x: {"logits": x, "features": x[:, :1]}, split(scores, [0, 1, 0]), Preprocess()
    )

    assert found.correct == 2


def test_labels_beyond_the_outputs_are_named():
    with pytest.raises(DataError, match="label 3 is out of range for 3 outputs"):
        measure.accuracy(lambda x: x, split(np.eye(3), [0, 1, 3]), Preprocess())


def test_outputs_that_are_no_scores_are_refused():
    with pytest.raises(MeasureError, match=r"shape \(3,\), expected \[3, classes\]"):
        measure.accuracy(lambda x: x[:, 0], split(np.eye(3), [0, 1, 2]), Preprocess())


def test_an_empty_split_has_no_accuracy():
    with pytest.raises(MeasureError, match="empty"):
        measure.accuracy(lambda x: x, split(np.zeros((0, 3)), []), Preprocess())


# the fresh process


def test_a_fresh_process_counts_what_torch_counts(packed):
    path, model, data = packed
    inputs, labels = data.test.take(slice(0, len(data.test)))
    with torch.no_grad():
        correct = int((model(torch.from_numpy(data.preprocess(inputs))).argmax(1).numpy() == labels).sum())

    found = measure.fresh_accuracy(path, "digits")

    assert abs(found["correct"] - correct) <= 1  # one tie may fall the other way
    assert found["total"] == len(data.test)


def test_a_fresh_process_gets_the_data_of_a_python_function_as_arrays(packed, tmp_path):
    path, _, _ = packed
    module = tmp_path / "mine.py"
    module.write_text(
        "import torch\n"  # the function needs torch, the measuring process must not
        "from gossamer.data import load_data\n"
        "def digits():\n    torch.zeros(1)\n    return load_data('digits')\n"
    )

    assert measure.fresh_accuracy(path, f"{module}:digits") == measure.fresh_accuracy(path, "digits")


def test_the_fresh_process_cannot_import_torch(packed, tmp_path, monkeypatch):
    path, _, _ = packed
    site = tmp_path / "zstandard.py"  # imported by the runtime before our own code could notice
    site.write_text("import torch\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    done = subprocess.run(
        [sys.executable, "-m", "gossamer.measure", str(path), "--data", "digits"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "torch" in json.loads(done.stdout)["error"]


def test_errors_of_the_fresh_process_keep_their_kind(packed, tmp_path):
    path, _, _ = packed
    with pytest.raises(DataError, match="Did you mean 'digits'"):
        measure.fresh_accuracy(path, "digist")
    with pytest.raises(gs.GossamerError, match="cannot be opened"):
        measure.fresh_accuracy(tmp_path / "missing.goss", "digits")


def test_another_interpreter_can_be_named(packed, monkeypatch):
    path, _, _ = packed
    monkeypatch.setenv("GOSSAMER_PYTHON", sys.executable)
    assert measure.fresh_accuracy(path, "digits")["total"] == 2000
    monkeypatch.setenv("GOSSAMER_PYTHON", "/nowhere/python")
    with pytest.raises(MeasureError, match="'/nowhere/python' cannot be started"):
        measure.fresh_accuracy(path, "digits")
    monkeypatch.setenv("GOSSAMER_PYTHON", "true")
    with pytest.raises(MeasureError, match="must name a Python that has gossamer installed"):
        measure.fresh_accuracy(path, "digits")


def test_latency_of_a_file_is_a_ratio_measured_in_one_run(packed):
    path, _, _ = packed

    found = measure.against_onnxruntime(path, threads=1, batch=4, seconds=0.2)

    assert found["ratio_of_medians"] == pytest.approx(
        found["onnxruntime_fp32"]["median_ms"] / found["ours"]["median_ms"]
    )
    assert found["ours"]["calls"] == found["onnxruntime_fp32"]["calls"] >= latency.MIN_CALLS
    assert (found["threads"], found["batch"]) == (1, 4)


# latency


class Clock:
    """Time that passes only when a function under test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def costing(self, name: str, seconds: list[float]):
        calls = iter(seconds * 100_000)

        def function(x: object) -> None:
            self.order.append(name)
            self.now += next(calls)

        return function


def test_functions_take_turns_after_their_warm_up():
    clock = Clock()
    functions = {"a": clock.costing("a", [0.01]), "b": clock.costing("b", [0.02])}

    found = measure.interleave(functions, [0, 1], seconds=3.0, clock=clock)

    warm = 50 + 25  # 0.5 s of each
    assert clock.order[:warm] == ["a"] * 50 + ["b"] * 25
    assert clock.order[warm : warm + 6] == ["a", "b"] * 3
    assert found["a"].calls == found["b"].calls == pytest.approx(100, abs=1)
    assert found["a"].median_ms == pytest.approx(10)
    assert found["b"].median_ms == pytest.approx(20)


def test_a_slow_function_stops_after_few_calls():
    clock = Clock()

    found = measure.interleave({"slow": clock.costing("slow", [2.0])}, [0], seconds=3.0, clock=clock)

    assert found["slow"].calls == latency.MIN_CALLS
    assert len(clock.order) == 2 * latency.MIN_CALLS


def test_every_call_gets_the_next_input():
    seen = []
    measure.interleave({"a": seen.append}, [1, 2, 3], seconds=0.01, warm_up_seconds=0.0)

    assert seen[:4] == [1, 2, 3, 1]


def test_percentiles_are_those_of_the_calls():
    seconds = np.random.default_rng(0).uniform(1e-3, 2e-3, 101)
    ordered = sorted(seconds)

    found = Latency.of(list(seconds))

    assert found.median_ms == pytest.approx(1e3 * ordered[50])
    assert (found.p5_ms, found.p95_ms) == pytest.approx((1e3 * ordered[5], 1e3 * ordered[95]))
    assert found.min_ms == pytest.approx(1e3 * ordered[0])


def test_a_difference_is_told_from_the_medians_of_parts_of_the_run():
    rng = np.random.default_rng(0)
    one = Latency.of(list(rng.normal(0.010, 0.002, 500)))
    same = Latency.of(list(rng.normal(0.010, 0.002, 500)))
    other = Latency.of(list(rng.normal(0.012, 0.002, 500)))  # single calls mix, medians do not

    assert one.overlaps(same)
    assert same.overlaps(one)
    assert not one.overlaps(other)
    assert not other.overlaps(one)
    assert one.p95_ms > other.p5_ms


def test_nothing_to_measure_is_an_error():
    with pytest.raises(MeasureError, match="give at least one of each"):
        measure.interleave({}, [1])


def test_a_fixed_batch_is_not_timed_at_another(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    gs.pack(model, tmp_path / "fixed.goss", torch.zeros(1, 4), dynamic_batch=False)

    with pytest.raises((MeasureError, ModelError), match="fixed batch"):
        measure.against_onnxruntime(tmp_path / "fixed.goss", batch=8, seconds=0.1)


# machine


def test_the_machine_is_described_without_naming_it():
    import platform

    text = json.dumps([measure.machine.describe(), measure.machine.versions()])

    assert platform.node() not in text or len(platform.node()) < 4
    assert measure.machine.describe()["cores"] >= 1
    assert measure.machine.versions()["torch"] == torch.__version__
    assert math.isclose(len(measure.machine.today()), 20)
