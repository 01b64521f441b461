"""The scan of single layers: what is measured, how it ranks layers, and how it is shown."""

from __future__ import annotations

import copy
import dataclasses
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from gossamer import formats, quantizers
from gossamer.report import build, plots, sensitivity, table
from gossamer.steps import Context
from gossamer.steps.sensitivity import scan

STEPS = [gs.Calibrate(samples=64), gs.Quantize(bits={"*": 8, "1": 2}, granularity="channel")]


@pytest.fixture(scope="module")
def data():
    """The bundled digits, small splits."""
    digits = gs.load_data("digits")
    few = {name: getattr(digits, name).subset(range(200)) for name in ("train", "validation", "test")}
    return dataclasses.replace(digits, **few)


@pytest.fixture(scope="module")
def trained(data):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)
    )
    gs.apply(model, gs.Train(epochs=20, lr=3e-3, batch_size=20), data)
    return model.eval()


@pytest.fixture(scope="module")
def rounded(trained, data):
    return gs.apply(copy.deepcopy(trained), STEPS, data)


def rows_of(model, data, **options):
    x = torch.from_numpy(data.batch(1))
    with quantizers.unquantized(model):
        places = quantizers.place(quantizers.record(model, (x,))).places
    return scan(model, ["1", "3", "5"], places, data.validation, data, **options)


def test_the_error_of_one_rounded_weight_is_that_of_a_network_with_this_weight_alone(trained, rounded, data):
    rows = rows_of(rounded, data)

    x = torch.from_numpy(data.preprocess(data.validation.inputs[np.arange(200)]))
    wanted = trained(x).detach().double()
    for row in rows:
        alone = copy.deepcopy(trained)
        alone.get_submodule(row.layer).weight.data = formats.plain_parameters(rounded)[f"{row.layer}.weight"]
        error = float((alone(x).detach().double() - wanted).square().sum() / wanted.square().sum())
        assert row.weights == pytest.approx(error, rel=1e-3, abs=1e-9)


def test_the_error_of_rounded_inputs_is_that_of_a_layer_that_reads_them(trained, rounded, data):
    row = rows_of(rounded, data)[1]

    x = torch.from_numpy(data.preprocess(data.validation.inputs[np.arange(200)]))
    wanted = trained(x).detach().double()
    hidden = trained[:3](x).detach()
    grid = quantizers.quantizers(rounded)["call1"].grid()
    found = trained[3:](grid.fake(hidden)).detach().double()
    assert row.activations == pytest.approx(
        float((found - wanted).square().sum() / wanted.square().sum()), rel=1e-3
    )


def test_the_layer_with_the_fewest_bits_is_the_most_sensitive_and_the_network_stays_as_it_was(rounded, data):
    x = torch.from_numpy(data.batch(20))
    before = rounded(x)

    rows = rows_of(rounded, data, apart=False)

    assert max(rows, key=lambda row: row.both).layer == "1"
    assert [row.weights for row in rows] == [None] * 3
    assert torch.equal(rounded(x), before)


def test_protect_leaves_the_most_sensitive_layer_float_first(trained, data):
    model = copy.deepcopy(trained)
    steps = [gs.Calibrate(samples=64), gs.Quantize(bits={"*": 8, "1": 2}, fit="max")]
    context = Context(data=data, teacher=copy.deepcopy(trained))

    for step in steps:
        model = step.apply(model, context)
    model = gs.Protect(max_drop=0.0, most=1.0, scan=True).apply(model, context)

    assert context.notes["sensitivity"][0]["layer"] == "1"
    stays = [entry["name"] for entry in context.skipped if "stays float" in entry["reason"]]
    assert stays[:1] == ["1.weight"]
    assert "1.weight" not in formats.attached(model)


def test_a_scan_is_made_where_nothing_is_lost_too(rounded, trained, data):
    context = Context(data=data, teacher=trained)

    gs.Protect(max_drop=100, scan=True).apply(copy.deepcopy(rounded), context)

    assert [row["layer"] for row in context.notes["sensitivity"]] == ["1", "3", "5"]
    assert all(row["weights"] is not None for row in context.notes["sensitivity"])


def sample(count=12):
    random = np.random.default_rng(0)
    return [
        {
            "layer": f"layer{i}.conv<{i}>",
            "weights": float(random.random() / 1e4),
            "activations": float(random.random() / 1e4) if i else None,
            "both": float(random.random() / 1e3),
            "drop_points": float(random.integers(-3, 9) / 10),
        }
        for i in range(count)
    ]


def test_the_report_takes_the_last_scan():
    stages = [
        {"name": "Protect", "notes": {"sensitivity": sample(3)}},
        {"name": "Protect", "notes": {"sensitivity": sample(2)}},
        {"name": "Finetune", "notes": {}},
    ]

    assert build.sensitivity(stages) == sample(2)
    assert build.sensitivity([{"name": "Train"}]) == []


def test_the_picture_on_the_page_has_a_bar_for_each_layer():
    rows = sample()

    drawn = ET.fromstring(plots.sensitivity(rows))

    bars = [element for element in drawn.iter() if element.tag.endswith("rect")]
    heights = [float(bar.get("height")) for bar in bars]
    assert len(bars) == len(rows)
    changes = [row["both"] ** 0.5 for row in rows]
    ratios = [height / change for height, change in zip(heights, changes, strict=True)]
    assert max(ratios) == pytest.approx(min(ratios), rel=0.01)
    assert plots.sensitivity([]) == ""


def test_the_text_shows_the_most_sensitive_layers_first():
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table._sensitivity(sample()))

    said = console.export_text()
    worst = max(sample(), key=lambda row: row["both"])
    assert "10 of 12 layers" in said
    assert said.index(worst["layer"]) == min(
        said.index(f"layer{i}.") for i in range(12) if f"layer{i}." in said
    )
    assert f"{100 * worst['both'] ** 0.5:.2f} %" in said


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_picture_is_written_in_every_format(ending, tmp_path):
    sensitivity.save(sample(), tmp_path / f"s.{ending}", name="net")

    assert (tmp_path / f"s.{ending}").stat().st_size > 1000
    if ending == "svg":
        text = (tmp_path / "s.svg").read_text(encoding="utf-8")
        assert "layer3.conv&lt;3&gt;" in text
        assert "change of the outputs" in text


def test_a_network_that_loses_nothing_can_be_drawn(tmp_path):
    rows = [{"layer": "a", "weights": None, "activations": None, "both": 0.0, "drop_points": 0.0}]

    sensitivity.save(rows, tmp_path / "s.svg")

    assert "<svg" in plots.sensitivity(rows)
    assert (tmp_path / "s.svg").is_file()
