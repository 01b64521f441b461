"""The whole torch-free side in a second virtual environment, one in which torch and its companions are not installed."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

import gossamer as gs
from gossamer import native
from gossamer.measure import fresh_accuracy

ABSENT = (
    "torch",
    "onnx-",
    "onnx.",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "accelerate",
    "pydantic",
    "scipy",
)


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has what `pip install gossamer` brings, and nothing of [compress]."""
    root = tmp_path_factory.mktemp("second")
    venv.create(root / "venv", with_pip=False)
    packages = root / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.name != "onnx" and not entry.name.lower().startswith(ABSENT):
            (packages / entry.name).symlink_to(entry)
    source, library = Path(gs.__file__).parent, native.path()
    if source.parent != Path(
        sysconfig.get_paths()["purelib"]
    ):  # installed editable: the sources lie elsewhere
        (packages / "gossamer").unlink(missing_ok=True)
        (packages / "gossamer").mkdir()
        for part in {p.name: p for p in (*source.iterdir(), library)}.values():
            (packages / "gossamer" / part.name).symlink_to(part)
    for hook in packages.glob("*editable*"):
        hook.unlink()
    site = next((root / "venv").glob("lib*/python*/site-packages"))
    (site / "second.pth").write_text(f"{packages}\n", encoding="utf-8")
    return root / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data, model = gs.load_data("digits"), gs.load_model("lenet300", seed=0)
    gs.apply(model, [gs.Train(epochs=2, lr=2e-3), gs.Prune(density=0.3), gs.Share(bits=4)], data)
    path = tmp_path_factory.mktemp("packed") / "model.goss"
    gs.pack(model, path, data.batch(2), preprocess=data.preprocess, labels=data.classes)
    with torch.no_grad():
        expected = model.eval()(torch.as_tensor(data.batch(16)))
    (path.parent / "expected.json").write_text(json.dumps(expected.tolist()), encoding="utf-8")
    return path


def test_the_environment_really_lacks_torch(interpreter: Path) -> None:
    code = (
        "import importlib.util as u; print([n for n in ('torch', 'onnx', 'safetensors') if u.find_spec(n)])"
    )

    assert (
        subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    )


def test_logits_equal_those_of_the_trained_network(interpreter: Path, packed: Path) -> None:
    code = (
        "import sys, json, gossamer as gs\n"
        "data = gs.load_data('digits')\n"
        "print(json.dumps(gs.open(sys.argv[1])(data.batch(16)).tolist()))"
    )

    said = subprocess.run(
        [interpreter, "-c", code, packed], capture_output=True, text=True, check=True
    ).stdout

    expected = torch.tensor(json.loads((packed.parent / "expected.json").read_text(encoding="utf-8")))
    assert (torch.tensor(json.loads(said)) - expected).abs().max() < 1e-4


def test_accuracy_is_the_same_with_and_without_torch_on_the_machine(
    interpreter: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fresh_accuracy(packed, "digits")
    monkeypatch.setenv("GOSSAMER_PYTHON", str(interpreter))

    assert fresh_accuracy(packed, "digits") == here
    assert here["value"] > 0.7


def test_compressing_without_torch_says_what_to_install(interpreter: Path) -> None:
    command = [interpreter, "-m", "gossamer", "compress", "lenet300", "--data", "digits"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "pip install 'gossamer[compress]'" in done.stderr
    assert done.stderr.count("\n") == 1
