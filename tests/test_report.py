"""The report: its figures, its text, its pictures and its page."""

from __future__ import annotations

import copy
import json
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import chromium
import gossamer as gs
from gossamer.report import build, html, plots, table, units
from report_sample import sample

DEEP = {
    f"features.stage{i // 10}.block{i % 10}.a_very_long_module_name.conv{i % 3}.parametrized.weight": (
        16,
        16,
        3,
        3,
    )
    for i in range(60)
} | {f"bn{i}.bias": (16,) for i in range(40)}
HOSTILE = {"<script>alert(1)</script>.weight": (10, 10), '"><img src=http://example.com/x>': (4, 4)}
REPORTS = {
    "lenet5": sample(),
    "without latency": sample(latency=False),
    "a hundred tensors": sample(DEEP),
    "hostile names": sample(HOSTILE),
    "one tiny tensor": sample({"w": (1, 1)}),
}


def bare() -> dict:
    """A report in which everything optional is missing."""
    report = sample(latency=False)
    report["before"]["zstd_bytes"] = None
    report["after"]["max_logit_difference"] = None
    report |= {"stages": [], "skipped": [], "layers": []}
    return report


REPORTS["bare"] = bare()


# units


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (62_547, "62.5 kB"),
        (999_600, "1.00 MB"),
        (1_724_320, "1.72 MB"),
    ],
)
def test_bytes_have_three_digits_and_a_unit(count, said):
    assert units.bytes_text(count) == said


@pytest.mark.parametrize(
    ("ms", "said"), [(0.0423, "42.3 µs"), (0.9999, "1.00 ms"), (12.34, "12.3 ms"), (1500, "1.50 s")]
)
def test_milliseconds_choose_their_unit(ms, said):
    assert units.ms_text(ms) == said


@pytest.mark.parametrize(
    ("s", "said"), [(4.21, "4.2 s"), (59.7, "60 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_seconds_choose_their_unit(s, said):
    assert units.seconds_text(s) == said


@pytest.mark.parametrize(
    ("n", "said"), [(9999, "9,999"), (25_000, "25.0 k"), (431_080, "431 k"), (61_100_840, "61.1 M")]
)
def test_counts_choose_their_unit(n, said):
    assert units.count_text(n) == said


def test_a_layout_is_shown_without_its_float_leaves():
    assert units.layout_text("sparse(values=codebook(centroids=dense))") == "sparse › codebook"
    assert units.layout_text("dense") == "dense"
    assert units.layout_text("sum(a=low_rank, b=sparse(values=dense))") == "sum › low_rank › sparse"


def test_no_one_is_called_faster_where_ranges_meet():
    latency = copy.deepcopy(sample()["latency"])
    assert "no clear difference" in units.latency_text(latency)
    latency |= {"overlap": False, "ratio_of_medians": 2.0}
    assert units.latency_text(latency).startswith("2.00 times as fast")
    latency |= {"ratio_of_medians": 0.5}
    assert units.latency_text(latency).startswith("2.00 times as slow")


# text


def text_of(report: dict, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115  # closed with the test
    console.print(table.render(report, html="runs/report.html", file="runs/model.goss"))
    console.file.close()
    return console.export_text()


@pytest.mark.parametrize("name", REPORTS)
def test_the_text_fits_80_columns_and_names_the_page(name):
    said = text_of(REPORTS[name])

    assert max(map(len, said.splitlines())) <= 80
    assert "runs/report.html" in said
    assert "Skipped layers" in said


def test_the_text_holds_the_promised_figures():
    report = sample()
    said = text_of(report)

    assert f"{report['ratios']['size']:.1f}x" in said
    assert "zstd -19" in said
    assert "99.07 %" in said
    assert "98.83 to 99.21" in said
    assert "ONNX Runtime fp32" in said
    assert "conv1.bias: has one dimension" in said


# pictures


def test_every_picture_is_well_formed_and_named():
    for report in REPORTS.values():
        drawn = [plots.stages(report), plots.shares([("a & b", 3), ("<c>", 1)])]
        drawn += [plots.histogram(layer) for layer in report["layers"]]
        for svg in filter(None, drawn):
            root = ElementTree.fromstring(svg)
            assert root.get("role") == "img"
            assert root.get("aria-label")


def test_parts_of_the_bar_fill_it_in_proportion():
    root = ElementTree.fromstring(plots.shares([("a", 600), ("b", 300), ("c", 100)]))

    starts = [float(part.get("x")) / plots.WIDTH for part in root]

    assert starts == pytest.approx([0.0, 0.6, 0.9], abs=1e-3)


def test_dots_stand_at_the_accuracies():
    report = sample()
    root = ElementTree.fromstring(plots.stages(report))
    dots = np.array([float(dot.get("cy")) for dot in root if "dot" in (dot.get("class") or "")])
    accuracies = np.array([stage["validation_accuracy"] for stage in report["stages"]])

    slope, offset = np.polyfit(accuracies, dots, 1)

    assert slope < 0
    assert np.abs(slope * accuracies + offset - dots).max() < 0.2


def test_one_bad_epoch_does_not_flatten_the_picture():
    report = sample()
    report["stages"][0]["history"][0]["validation_accuracy"] = 0.1

    labels = re.findall(r">([\d.]+) %</text>", plots.stages(report))

    assert min(map(float, labels)) > 80


def test_equal_accuracies_and_missing_ones_can_be_drawn():
    report = sample()
    for stage in report["stages"]:
        stage |= {"validation_accuracy": 1.0, "history": []}
    report["stages"][1]["validation_accuracy"] = None

    ElementTree.fromstring(plots.stages(report))


# the page


class Reader(HTMLParser):
    """What a browser would load or run, the elements with their attributes, and unbalanced tags."""

    EMPTY = ("meta", "link", "br", "img", "input", "hr", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def check_statically(page: str) -> None:
    """No script, no handler, no request: then no console error is possible."""
    reader = read(page)
    assert not reader.open, reader.open
    for tag, attributes in reader.elements:
        assert tag not in ("script", "iframe", "object", "embed", "img", "video", "audio", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                assert value.startswith(("data:,", "#")), (tag, name, value)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"@import|url\(|expression\(", "".join(styles))


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_runs_nothing_and_asks_for_nothing(name):
    check_statically(html.page(REPORTS[name]))


def test_the_page_shows_every_layer_field_and_reason():
    report = REPORTS["a hundred tensors"]
    said = "".join(read(html.page(report)).text)

    for layer in report["layers"]:
        assert layer["name"] in said
    assert f"{report['after']['file_bytes']:,} B" in said
    assert report["skipped"][0]["reason"] in said


def test_the_kinds_of_fields_sum_to_the_file():
    for report in REPORTS.values():
        kinds = html.kinds_of(report["fields"])

        assert sum(kind["bytes"] for kind in kinds) == report["after"]["file_bytes"]
        assert len(kinds) <= html.SHARES_SHOWN + 1


def test_every_table_names_its_columns_and_rows():
    reader = read(html.page(sample()))
    cells = [attributes for tag, attributes in reader.elements if tag == "th"]

    assert cells
    assert all(cell.get("scope") in ("col", "row") for cell in cells)
    assert all(
        cell.get("aria-hidden") == "true" for tag, cell in reader.elements if cell.get("class") == "bar"
    )


def test_text_has_enough_contrast_in_both_modes():
    page = html.page(sample())
    for palette in re.findall(r":root \{([^}]*--page[^}]*--ink[^}]*)\}", page):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palette))
        for ink in ("ink", "soft", "accent"):
            for ground in ("page", "card"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(one: str, two: str) -> float:
    """WCAG 2 contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page of headless Chromium, or None where there is none and none is demanded."""
    found = chromium.find()
    if found is None:
        required = os.environ.get("GOSSAMER_REQUIRE_CHROMIUM")
        assert not required, (
            "Chromium is missing; GOSSAMER_REQUIRE_CHROMIUM demands it: apt-get install chromium"
        )
        yield None
        return
    page = chromium.Page(found, tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("name", REPORTS)
def test_a_browser_opens_the_page_without_an_error_or_a_request(browser, tmp_path, name, mode):
    page = html.write(REPORTS[name], tmp_path / "report.html")
    check_statically(page.read_text(encoding="utf-8"))
    if browser is None:  # the static check above is all that can be said without a browser
        return

    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": mode}])
    browser.ask("Emulation.setDeviceMetricsOverride", width=420, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(page)

    requests = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    said = [
        e
        for e in browser.events
        if e["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    assert [url for url in requests if not url.startswith("data:,")] == [page.as_uri()]
    assert said == []
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth"), (
        "the page is wider than a phone"
    )
    assert browser.run("document.querySelectorAll('svg').length") >= 1
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) == (mode == "dark")


def test_the_browser_hears_errors_and_requests(browser, tmp_path):
    if browser is None:
        assert chromium.find() is None
        return
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('x'); throw 1</script><img src='http://127.0.0.1:9/x.png'>")

    browser.open(bad)

    methods = {event["method"] for event in browser.events}
    assert {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"} <= methods
    assert any("127.0.0.1" in str(e["params"].get("request")) for e in browser.events)


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(gs.GossamerError, match="the report could not be written"):
        html.write(sample(), tmp_path / "missing" / "report.html")
    (tmp_path / "taken").mkdir()
    with pytest.raises(gs.GossamerError, match="the report could not be written"):
        html.write(sample(), tmp_path / "taken")

    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


# collected figures


def test_a_report_adds_up_to_the_file(tmp_path):
    torch.manual_seed(0)
    original = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    model = copy.deepcopy(original)
    gs.apply(model, [gs.Prune(sparsity=0.8), gs.Share(bits=3)])
    packed = gs.pack(model, tmp_path / "model.goss", torch.zeros(2, 1, 28, 28))
    accuracy = {"correct": 9, "total": 10, "value": 0.9, "low": 0.6, "high": 0.98}

    report = build.report(
        recipe={"model": "mine", "data": "digits", "seed": 3, "steps": []},
        original=original,
        model=model,
        stages=[{"name": "Prune", "options": {}, "seconds": 1.0, "validation_accuracy": 0.9, "density": 0.2}],
        packed=packed,
        figures={"before": {"accuracy": accuracy}, "after": {"accuracy": accuracy, "latency": None}},
        machine={"cpu": "one"},
    )

    assert json.loads(json.dumps(report)) == report
    assert report["after"]["file_bytes"] == packed.path.stat().st_size
    assert sum(field["bytes"] for field in report["fields"]) == report["after"]["file_bytes"]
    assert report["before"]["weights_bytes"] == 4 * (784 * 30 + 30 + 300 + 10)
    layers = {layer["name"]: layer for layer in report["layers"]}
    assert set(layers) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    for name in ("1.weight", "3.weight"):
        layer, before = layers[name], dict(original.named_parameters())[name]
        assert layer["density"] == pytest.approx(0.2, abs=0.01)
        drawn = layer["histogram"]
        assert sum(drawn["after"]["counts"]) + drawn["after"]["zeros"] == layer["weights"] == before.numel()
        assert sum(drawn["before"]["counts"]) == before.numel()
    assert report["ratios"]["latency"] is None
    html.page(report)


def test_a_histogram_puts_both_sides_in_the_same_bins():
    before, after = np.array([-2.0, 1.0, 1.9], np.float32), np.array([-1.0, 0.0, 1.0], np.float32)

    drawn = build.histograms(before, after)

    assert drawn["before"]["edges"] == drawn["after"]["edges"]
    assert drawn["after"]["edges"][0] == -2.0
    assert (sum(drawn["before"]["counts"]), sum(drawn["after"]["counts"]), drawn["after"]["zeros"]) == (
        3,
        2,
        1,
    )


def test_an_all_zero_weight_has_a_histogram():
    drawn = build.histograms(None, np.zeros((3, 3), np.float32))
    layer = {"name": "w", "histogram": drawn}

    assert drawn["before"] is None
    assert drawn["after"]["zeros"] == 9
    ElementTree.fromstring(plots.histogram(layer))


def test_a_stage_without_everything_is_shown():
    stage = SimpleNamespace(**build._stage({"name": "Round", "history": [{"number": 1, "train_loss": 0.5}]}))

    assert stage.history == [{"epoch": 1, "train_loss": 0.5}]
    assert stage.validation_accuracy is None
