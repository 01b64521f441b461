"""Imports point one way, in the order of the house plan, and what must not need torch does not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer

SOURCE = Path(gossamer.__file__).parent
ORDER = [
    *("errors", "native", "tracing", "cost", "codec", "artifact", "runtime", "data"),
    *(
        "formats",
        "quantizers",
        "methods",
        "pruning",
        "distillation",
        "blocks",
        "dynamic",
        "models",
        "training",
    ),
    *("export", "measure", "search", "steps", "recipe", "stage", "report", "run", "papers", "cli"),
]
TORCH_FREE = ["errors", "native", "tracing", "cost", "codec", "artifact", "runtime", "data", "measure", "cli"]


def part(path: Path) -> str:
    """The folder or file of the package that a source file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path, *, only_at_runtime: bool = False) -> set[str]:
    """The parts of the package that a file imports, relative imports resolved."""
    here = ["gossamer", *path.relative_to(SOURCE).with_suffix("").parts]
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if only_at_runtime and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            names = [".".join([*module, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("gossamer.")}
    return {name for name in found if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


def files() -> list[Path]:
    return sorted(
        path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or not path.name.startswith("__")
    )


def test_every_part_of_the_package_has_a_place_in_the_order():
    unplaced = {part(path) for path in files()} - set(ORDER)

    assert not unplaced, f"give {sorted(unplaced)} a place in ORDER and in the house plan"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_forward(path):
    place = ORDER.index(part(path))

    backward = {name for name in imported(path, only_at_runtime=True) if ORDER.index(name) > place}

    assert not backward, (
        f"{path.relative_to(SOURCE)} imports {sorted(backward)}, which come later in the house"
    )


def test_the_checker_sees_every_way_to_write_an_import(tmp_path, monkeypatch):
    folder = tmp_path / "codec"
    folder.mkdir()
    for name in ("cli", "steps", "run", "export"):
        (tmp_path / f"{name}.py").touch()
    file = folder / "bad.py"
    file.write_text(
        "from .. import cli\nfrom ..steps import Prune\nimport gossamer.run\n"
        "def f():\n    from gossamer import export\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)

    assert imported(file) == {"cli", "steps", "run", "export"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["gossamer", *(f"gossamer.{part}" for part in TORCH_FREE)])
def test_importing_it_imports_no_torch(name):
    python(f"import sys, {name}; assert 'torch' not in sys.modules")


def test_opening_unpacking_and_loading_data_import_no_torch():
    python(
        "import sys, gossamer as gs\n"
        "gs.open, gs.unpack, gs.inspect, gs.Session, gs.load_data, gs.Data, gs.Preprocess, gs.GossamerError\n"
        "assert not hasattr(gs, 'nothing')\n"
        "from gossamer import runtime, artifact\n"
        "assert 'torch' not in sys.modules"
    )


def test_every_public_name_can_be_had_and_every_step_is_one():
    from gossamer import steps

    for name in gossamer.__all__:
        assert getattr(gossamer, name) is not None
    for name in steps.__all__:
        assert getattr(gossamer, name) is getattr(steps, name)
    assert set(steps.__all__) <= set(dir(gossamer))


def test_a_misspelt_name_suggests_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'load_model'"):
        _ = gossamer.load_modle


def test_without_torch_a_name_that_needs_it_says_how_to_install_it():
    said = python(
        "import sys; sys.modules['torch'] = None\n"
        "import gossamer as gs\n"
        "for name in ('load_model', 'Prune', 'pack'):\n"
        "    try: getattr(gs, name)\n"
        "    except gs.GossamerError as error: print(error)\n"
        "print(sorted(set(dir(gs)) & {'open', 'Prune'}))"
    )

    assert said.count("needs the package 'torch'") == 3
    assert said.count("pip install 'gossamer[compress]'") == 3
    assert said.splitlines()[-1] == "['open']"
