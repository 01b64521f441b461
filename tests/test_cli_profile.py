"""`gossamer profile` and `gossamer compare`: the same figures as text, JSON and picture, for models and files."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer.cli import main


class Twice(nn.Module):
    """Two inputs, and an operator that no rule knows."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, left, right):
        return torch.fft.fft(self.linear(left) + self.linear(right)).abs()


@pytest.fixture
def call(capsys):
    """Run a command line; (exit code, standard output, standard error)."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        said = capsys.readouterr()
        code = stop.value.code
        return (0 if code is None else int(code)), said.out, said.err

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """LeNet-5, half pruned, as a packed and as an ONNX file."""
    folder = tmp_path_factory.mktemp("profile")
    model = gs.load_model("lenet5")
    gs.apply(model, [gs.Prune(sparsity=0.5), gs.Share(bits=4)])
    gs.pack(model, folder / "model.goss", torch.zeros(1, 1, 28, 28))
    (folder / "model.onnx").write_bytes(gs.unpack(folder / "model.goss"))
    return folder


def test_the_totals_are_the_published_ones(call):
    code, said, _ = call("profile", "lenet5")

    assert code == 0
    assert "2,293,000" in said
    assert "431,080" in said
    assert "not counted: nothing" in said


def test_a_model_a_packed_file_and_an_onnx_file_have_the_same_operations(call, files):
    answers = [
        json.loads(call("profile", what, "--json")[1])
        for what in ("lenet5", files / "model.goss", files / "model.onnx")
    ]

    assert {answer["total"]["macs"] for answer in answers} == {2_293_000}
    assert {answer["total"]["params"] for answer in answers} == {431_080}
    assert {answer["total"]["bias_adds"] for answer in answers} == {15_230}
    assert answers[0]["file_bytes"] is None
    assert answers[1]["file_bytes"] == (files / "model.goss").stat().st_size
    assert answers[1]["total"]["stored_bytes"] < answers[1]["file_bytes"]
    assert answers[1]["total"]["macs_nonzero"] == pytest.approx(2_293_000 / 2, rel=0.3)
    names = [{row["name"] for row in answer["layers"]} for answer in answers]
    assert all(
        {"conv1", "conv2", "ip1", "ip2"} <= found for found in names[:2]
    )  # .onnx files have short names


def test_sorting_and_depth(call):
    by_macs = json.loads(call("profile", "resnet20", "--sort", "macs", "--json")[1])
    text = call("profile", "resnet20", "--sort", "params")[1].splitlines()
    joined = json.loads(call("profile", "resnet20", "--depth", "1", "--json")[1])

    first = next(line for line in text if "layer" in line and "Conv2d" in line)
    assert "layer3" in first
    assert {row["name"] for row in joined["layers"]} >= {"conv1", "layer1", "layer2", "layer3", "linear"}
    assert joined["total"]["macs"] == by_macs["total"]["macs"] == 40_551_040
    assert sum(row["macs"] for row in joined["layers"]) == 40_551_040


def test_what_was_not_counted_is_listed_with_calls_and_bytes(call, tmp_path):
    source = tmp_path / "net.py"
    source.write_text("from test_cli_profile import Twice\n", encoding="utf-8")

    code, said, _ = call("profile", f"{source}:Twice", "--input", "2x8", "--input", "2x8")
    answer = json.loads(call("profile", f"{source}:Twice", "--input", "2x8", "--input", "2x8", "--json")[1])

    assert code == 0
    assert "not counted (no rule knows their operations)" in said
    assert [item["calls"] for item in answer["uncounted"]] == [1]
    assert "fft" in answer["uncounted"][0]["op"]
    assert answer["total"]["macs"] == 2 * 2 * 8 * 8
    assert answer["total"]["params"] == 72


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("resnet20", "--input", "1x1x28x28"), "conv1"),
        (("resnet20", "--input", "1x3x"), "expected a shape such as"),
        (("resnet20", "--input", "1x3x32x32:float31"), "Did you mean 'float32'"),
        (("resnet20", "--sort", "mac"), "Did you mean 'macs'"),
        (("nothing.goss",), "no such file"),
        (("torch.nn:ReLU",), "--input"),
        (("resnet20", "--input", "1x3x32x32", "--input", "1x3"), "forward takes 1"),
    ],
)
def test_a_wrong_line_is_one_line_with_a_remedy(call, words, hint):
    code, _, said = call("profile", *words)

    assert code == 1
    assert hint in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["costs.svg", "costs.png"])
def test_a_picture_is_written(call, tmp_path, name):
    code, _, said = call("profile", "lenet5", "--plot", tmp_path / name)

    assert code == 0
    assert name in said
    content = (tmp_path / name).read_bytes()
    assert content.startswith(b"<?xml" if name.endswith("svg") else b"\x89PNG")
    if name.endswith("svg"):
        assert b"conv2" in content
        assert b"MACs per layer" in content


def test_latency_is_measured_for_models_and_files(call, files):
    options = ("--latency", "--seconds", "0.05", "--json")
    model = json.loads(call("profile", "lenet5", *options)[1])
    packed = json.loads(call("profile", files / "model.goss", *options)[1])

    assert set(model["latency"]) == {"torch", "onnxruntime_fp32"}
    assert set(packed["latency"]) == {"gossamer", "onnxruntime_fp32"}
    for answer in (model, packed):
        assert all(value["median_ms"] > 0 for value in answer["latency"].values())
        timed = [row["name"] for row in answer["layers"] if row["latency_ms"]]
        assert {"conv1", "conv2", "ip1"} <= set(timed)


def test_compare_puts_two_networks_side_by_side(call, files):
    code, said, _ = call("compare", "lenet5", files / "model.goss", "--seconds", "0.05")
    answer = json.loads(call("compare", "resnet20", "resnet32", "--no-latency", "--json")[1])

    assert code == 0
    assert "bytes of the file" in said
    assert "latency ms (median)" in said
    ratio = {line["figure"]: line["ratio"] for line in answer["figures"]}
    assert ratio["params"] == pytest.approx(269_722 / 464_154)
    assert ratio["macs"] == pytest.approx(40_551_040 / 68_862_592)
    assert "latency_ms" not in ratio


def test_compare_counts_right_answers(call, files):
    answer = json.loads(
        call(
            "compare",
            files / "model.onnx",
            files / "model.goss",
            "--data",
            "digits",
            "--no-latency",
            "--json",
        )[1]
    )

    accuracy = next(line for line in answer["figures"] if line["figure"] == "accuracy")
    assert accuracy["a"] == accuracy["b"]


def test_compare_reads_reports(call, files, tmp_path):
    report = tmp_path / "profile.json"
    report.write_text(call("profile", files / "model.goss", "--json")[1], encoding="utf-8")

    answer = json.loads(call("compare", report, files / "model.goss", "--json")[1])

    assert {line["ratio"] for line in answer["figures"] if line["figure"] in ("macs", "file_bytes")} == {1.0}
    assert any("both can run" in note for note in answer["notes"])


@pytest.mark.parametrize("content", ["{}", "[1]", "not json"])
def test_compare_refuses_what_is_no_report(call, tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")

    code, _, said = call("compare", path, path)

    assert code == 1
    assert "profile --json" in said


def test_compare_refuses_to_time_networks_of_other_inputs(call):
    code, _, said = call("compare", "lenet5", "resnet20", "--input", "1x1x28x28")

    assert code == 1
    assert "conv1" in said
