"""What the documentation shows works, and what it claims was measured.

Blocks marked `python` are executed, lines of `console` blocks that begin with `$ gossamer` are run, all of it
offline on the bundled digits. Only the training is shortened, by settings added to the end of a `compress`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gossamer import recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "docs/quickstart.md", "docs/profile.md", "docs/int8.md"]
WITHOUT_COMMANDS = ["docs/channels.md"]
SHORTER = [
    "--set",
    "train.epochs=1",
    "--set",
    "Prune.rounds=1",
    "--set",
    "Prune.epochs=1",
    "--set",
    "threads=1",
]


def blocks(page: str, kind: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES + WITHOUT_COMMANDS)
def test_python_on_the_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names: dict[str, object] = {}
    try:
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
    finally:
        torch.set_num_threads(threads)

    assert names  # something ran
    if page in PAGES[:2]:
        assert (tmp_path / "model.goss").stat().st_size > 1000
        assert capsys.readouterr().out


@pytest.mark.parametrize(
    "page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])]
)
def test_commands_on_the_page_run(page, tmp_path):
    lines = [
        line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")
    ]
    assert lines
    assert all(line.startswith("gossamer ") for line in lines)
    for line in lines:
        words = shlex.split(line)[1:] + (SHORTER if " compress " in line else [])
        done = subprocess.run(
            [sys.executable, "-m", "gossamer", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout


def test_the_recipe_on_its_page_can_be_read():
    import yaml

    [text] = blocks("docs/recipes.md", "yaml")

    shown = recipe.load(yaml.safe_load(text))

    assert [type(step).__name__ for step in shown.steps] == ["Prune", "Share", "Finetune", "Round"]


def test_steps_on_the_page_of_channels_can_be_read():
    import yaml

    shown = [
        recipe.load({"model": "lenet5", "data": "digits", **yaml.safe_load(text)})
        for text in blocks("docs/channels.md", "yaml")
    ]

    assert [[type(step).__name__ for step in one.steps] for one in shown] == [
        ["PruneChannels"],
        ["TrainSparse", "PruneChannels"],
    ]


def test_every_criterion_and_penalty_stands_on_the_page_of_channels():
    from gossamer.pruning import CHANNEL_CRITERIA
    from gossamer.steps.channel_search import METHODS
    from gossamer.steps.train_sparse import PENALTIES

    page = (ROOT / "docs" / "channels.md").read_text(encoding="utf-8")

    assert [name for name in (*CHANNEL_CRITERIA, *METHODS, *PENALTIES) if f"`{name}`" not in page] == []


def test_every_step_stands_on_the_page_of_recipes():
    from gossamer import steps

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")

    assert [name for name in steps.__all__ if f"| `{name}` |" not in page] == []


def test_links_of_the_documentation_lead_somewhere():
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + list(
        (ROOT / "docs").rglob("*.md")
    )
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page.name, target)


def figures():
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_in_the_documentation_are_those_of_the_results():
    known = figures()
    for page in known.PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert known.filled(text, ROOT / "papers" / "results") == text, (
            f"{page} is out of date: run make figures"
        )


def test_a_figure_is_filled_from_its_result(tmp_path):
    rows = [
        {"name": "size", "published": "40x", "claim": "at least 40", "ours": 51.234, "spread": [50.9, 51.6]}
        | {"seeds": 3, "holds": True},
        {
            "name": "error %",
            "published": None,
            "claim": "at most 1",
            "ours": 1.5,
            "spread": [1.5, 1.5],
            "seeds": 1,
        }
        | {"holds": False},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"paper": "one", "claims": rows}))
    known = figures()

    assert known.filled("a <!-- figure: one | size -->old<!-- end --> b", tmp_path) == (
        "a <!-- figure: one | size -->51.23 (50.9 to 51.6, 3 seeds)<!-- end --> b"
    )
    table = known.filled("<!-- results: one -->\n<!-- end -->", tmp_path)
    assert "| size | 40x | at least 40 | 51.23 (50.9 to 51.6, 3 seeds) | yes |" in table
    assert "| error % | - | at most 1 | 1.5 | **no** |" in table
    assert known.filled(table, tmp_path) == table
    assert "Not measured yet" in known.filled("<!-- results: two --><!-- end -->", tmp_path)
    with pytest.raises(SystemExit, match="no claim 'size of the moon'"):
        known.filled("<!-- figure: one | size of the moon --><!-- end -->", tmp_path)


def test_the_claims_of_a_benchmark_are_filled_from_its_result(tmp_path):
    rows = [
        {"name": "speed", "value": 1.51, "at_least": 1.6, "at_most": None, "holds": False},
        {"name": "bytes", "value": 1234, "at_least": None, "at_most": 2000, "holds": True},
        {"name": "threads", "value": 2, "at_least": None, "at_most": None, "holds": True},
    ]
    (tmp_path / "papers" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "one.json").write_text(json.dumps({"claims": rows}))

    table = figures().filled("<!-- claims: one -->\n<!-- end -->", tmp_path / "papers" / "results")

    assert "| speed | at least 1.6 | 1.51 | **no** |" in table
    assert "| bytes | at most 2,000 | 1,234 | yes |" in table
    assert "| threads | - | 2 |  |" in table


def test_claims_named_in_the_documentation_are_claims_of_the_papers():
    import yaml

    for page in figures().PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for paper, claim in re.findall(r"<!-- figure: ([^|]+?) \| (.+?) -->", text):
            known = yaml.safe_load((ROOT / "papers" / f"{paper}.yaml").read_text(encoding="utf-8"))["claims"]
            assert claim in [row["name"] for row in known], f"{page}: {paper} has no claim {claim!r}"
        for paper in re.findall(r"<!-- results: (.+?) -->", text):
            assert (ROOT / "papers" / f"{paper}.yaml").is_file()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 60


def test_no_committed_text_holds_a_path_of_one_machine_or_a_registry():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # a tree without git, such as an unpacked archive
        listed.stdout = "\n".join(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".json", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"(?<![\w.])/(?:home|root|work|Users)/\w|index-[u]rl|pypi[.]org", text), name
