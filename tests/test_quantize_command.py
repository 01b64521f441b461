"""`gossamer quantize`: an ONNX file becomes integers by one command; a slower network ships as floats, and says so."""

from __future__ import annotations

import collections
import json
import textwrap
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn

import gossamer as gs
from gossamer import recipe, run, runtime
from gossamer.cli import main
from gossamer.data import Split
from gossamer.errors import OptionError, StepError
from gossamer.report import html, table
from gossamer.steps import Context
from quantized_samples import optimized, options

INTEGERS: dict[str, object] = {
    "model": "lenet300",
    "data": "digits",
    "threads": 1,
    "train": {"epochs": 1, "lr": 0.002},
    "steps": [{"Calibrate": {"samples": 64}}, {"Quantize": {"bits": 8, "granularity": "channel"}}],
}


class Measured:
    """Stands for the measurement in a fresh process: the accuracies are right, the speeds are given."""

    def __init__(self, *ratios: float, overlap: bool = False) -> None:
        self.ratios, self.overlap, self.files = list(ratios), overlap, []

    def __call__(self, path, data, *, against=None, threads=1):
        self.files.append(path.name)
        accuracy = {"correct": 9, "total": 10, "value": 0.9, "low": 0.6, "high": 0.98}
        if against is None:
            return {"accuracy": accuracy, "latency": None}
        ratio = self.ratios.pop(0)
        one = {"p5_ms": 1.0, "p95_ms": 1.0, "min_ms": 1.0, "calls": 5, "medians_ms": (1.0, 1.0)}
        ours, theirs = {**one, "median_ms": 1 / ratio}, {**one, "median_ms": 1.0}
        latency = {"threads": threads, "batch": 1, "ours": ours, "onnxruntime_fp32": theirs}
        latency |= {"ratio_of_medians": ratio, "overlap": self.overlap}
        return {"accuracy": accuracy, "latency": latency}


def finished(tmp_path, measured, **changes):
    return run.run(recipe.load(INTEGERS, **changes), tmp_path, progress=False, figures=measured)


def operators(path) -> collections.Counter[str]:
    return collections.Counter(
        node.op_type for node in onnx.load_from_string(runtime.unpack(path)).graph.node
    )


def text_of(report) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as said:
        console.print(table.render(report))
    return said.get()


def test_integers_that_are_slower_than_floats_ship_as_floats_and_say_so(tmp_path):
    measured = Measured(0.7, 1.0)

    report = finished(tmp_path, measured)

    assert measured.files == ["original.goss", "model.goss", "model.goss"]
    assert "0.70 times the speed of float32" in report["fallback"]["reason"]
    assert report["fallback"]["integers"]["latency"]["ratio_of_medians"] == 0.7
    assert report["ratios"]["latency"] == 1.0
    assert "QuantizeLinear" not in operators(tmp_path / "model.goss")
    opened = gs.open(tmp_path / "model.goss")
    assert opened.metadata["fallback"] == report["fallback"]["reason"]
    assert (
        report["after"]["file_bytes"] < 0.3 * report["before"]["weights_bytes"]
    )  # weights stay on their grids
    assert "so the file computes in floats" in text_of(report)
    assert "so the file computes in floats" in html.page(report)


@pytest.mark.parametrize(
    ("ratio", "overlap", "changes"),
    [(1.4, False, {}), (0.98, True, {}), (0.7, False, {"keep_integers": True})],
    ids=["faster", "undecided", "kept"],
)
def test_integers_ship_where_they_are_not_slower_or_asked_for(ratio, overlap, changes, tmp_path):
    report = finished(tmp_path, Measured(ratio, overlap=overlap), **changes)

    assert report["fallback"] is None
    assert operators(tmp_path / "model.goss")["QuantizeLinear"] >= 3
    assert "fallback" not in gs.open(tmp_path / "model.goss").metadata


def test_a_network_without_integers_is_never_replaced(tmp_path):
    report = finished(tmp_path, Measured(0.5), steps=[{"Quantize": {"bits": 8}}])

    assert report["fallback"] is None


def test_keep_integers_is_true_or_false():
    with pytest.raises(OptionError, match="keep_integers is true or false; received 'yes'"):
        recipe.load(INTEGERS, keep_integers="yes")
    assert recipe.load(INTEGERS, keep_integers=True).to_dict()["keep_integers"] is True


@pytest.fixture(scope="module")
def lenet5_file(tmp_path_factory):
    """LeNet-5 with public weights, as torch exports it."""
    model = gs.load_model("lenet5", "lenet5_caffe_mnist").eval()
    file = tmp_path_factory.mktemp("onnx") / "lenet5.onnx"
    example, free = (torch.zeros(2, 1, 28, 28),), ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            model, example, str(file), dynamo=True, dynamic_shapes=free, external_data=False, verbose=False
        )
    return file


@pytest.mark.slow
def test_an_onnx_file_becomes_integers_by_one_command(lenet5_file, tmp_path, capsys):
    """The 2,000 first test pictures of MNIST."""
    (tmp_path / "digits.py").write_text(
        textwrap.dedent(
            """
            import dataclasses
            import gossamer as gs

            def mnist():
                data = gs.load_data("mnist")
                few = {"validation": data.validation.subset(range(500)), "test": data.test.subset(range(2000))}
                return dataclasses.replace(data, preprocess=gs.Preprocess(scale=1 / 255, color="L"), **few)
            """
        )
    )
    words = ["quantize", lenet5_file, "--data", f"{tmp_path / 'digits.py'}:mnist", "--out", tmp_path / "run"]

    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--samples", "128", "--keep-integers", "--json"])

    said = capsys.readouterr()
    assert not stop.value.code, said.err
    report = json.loads(said.out)
    assert report["before"]["accuracy"]["total"] == 2000
    assert report["before"]["accuracy"]["value"] > 0.98
    assert abs(report["after"]["accuracy"]["correct"] - report["before"]["accuracy"]["correct"]) <= 10
    assert report["ratios"]["size"] > 4
    kinds = operators(tmp_path / "run" / "model.goss")
    assert (kinds["Conv"], kinds["Gemm"]) == (2, 2)
    assert kinds["QuantizeLinear"] == 4  # the input and three layers; the last one ends as floats
    integers = onnx.load_from_string(runtime.unpack(tmp_path / "run" / "model.goss")).graph.initializer
    weights = [
        tensor for tensor in integers if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert len(weights) == 4


class Pictures(CalibrationDataReader):
    """One batch."""

    def __init__(self, x: np.ndarray) -> None:
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


@pytest.mark.slow
def test_onnx_runtime_runs_no_more_operators_of_ours_than_of_its_own_quantizer(lenet5_file, tmp_path):
    data = gs.load_data("mnist")
    quantize_static(str(lenet5_file), str(tmp_path / "static.onnx"), Pictures(data.batch(16)))
    model = gs.load_model(str(lenet5_file))
    gs.apply(model, [gs.Calibrate(samples=16), gs.Quantize(bits=8, granularity="channel")], data)

    packed = gs.pack(model, tmp_path / "ours.goss", data.batch(2))

    chosen = options()
    chosen.optimized_model_filepath = str(tmp_path / "theirs.onnx")
    ort.InferenceSession(str(tmp_path / "static.onnx"), chosen, providers=["CPUExecutionProvider"])
    theirs = len(onnx.load(tmp_path / "theirs.onnx").graph.node)
    assert optimized(packed.path, tmp_path).total() <= theirs


# what cannot be done, and how it is said


def pictures(inputs, count=40):
    labels = np.arange(count) % 10
    part = Split(inputs, labels, "train")
    return gs.Data(
        name="pictures",
        train=part,
        validation=part.subset(range(10)),
        test=part.subset(range(10)),
        classes=tuple("0123456789"),
        preprocess=gs.Preprocess(scale=1 / 255, color="L"),
    )


def test_inputs_of_another_shape_are_named_with_what_the_network_said():
    data = pictures(np.zeros((40, 20, 20), np.uint8))

    with pytest.raises(
        StepError, match=r"Calibrate.*\[1, 1, 20, 20\].*shapes cannot be multiplied.*preprocess"
    ):
        gs.apply(gs.load_model("lenet300"), gs.Calibrate(samples=16), data)


class Unfoldable(nn.Module):
    """A batch norm of the batch's own moments, which cannot fold, and a softmax, which has no integer kernel."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)
        self.conv = nn.Conv2d(1, 4, 3)
        self.curve = nn.Softmax(dim=1)
        self.linear = nn.Linear(4 * 26 * 26, 10)

    def forward(self, x):
        return self.linear(self.curve(self.conv(self.norm(x))).flatten(1))


def test_a_norm_that_cannot_fold_stays_float_and_is_listed(tmp_path):
    rng = np.random.default_rng(0)
    data = pictures(rng.integers(0, 255, (40, 28, 28), dtype=np.uint8))
    model = Unfoldable().eval()
    context = Context(data=data)

    quantized = gs.Calibrate(samples=16).apply(model, context)
    quantized = gs.Quantize(bits=8, granularity="channel").apply(quantized, context)
    packed = gs.pack(quantized, tmp_path / "m.goss", data.batch(2))

    assert any(entry["name"].startswith("norm") for entry in context.skipped)
    kinds = operators(packed.path)
    assert kinds["Softmax"] == 1  # in floats, between integers
    assert kinds["QuantizeLinear"] == 3
    x = data.batch(8)
    wanted = quantized(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(gs.open(packed.path)(x), wanted, atol=0.05 * np.abs(wanted).max())
