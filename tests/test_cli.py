"""The command line: answers as text and JSON, errors as one line, exit codes, no torch where none is due."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import gossamer as gs
from gossamer.cli import main
from gossamer.cli.compress import change
from gossamer.errors import OptionError

COMMANDS = (
    "compress",
    "quantize",
    "inspect",
    "unpack",
    "run",
    "bench",
    "profile",
    "compare",
    "paper",
    "demo",
)
TINY = {
    "model": "lenet300",
    "data": "digits",
    "threads": 1,
    "train": {"epochs": 1},
    "steps": [{"Prune": {"density": 0.2}}, {"Share": {"bits": 4}}, {"Finetune": {"epochs": 1}}],
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A linear network on the digits, with preprocessing and labels, pruned and shared."""
    torch.manual_seed(0)
    data = gs.load_data("digits")
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    gs.apply(model, [gs.Prune(sparsity=0.5), gs.Share(bits=4)])
    path = tmp_path_factory.mktemp("cli") / "model.goss"
    gs.pack(model, path, data.batch(2), preprocess=data.preprocess, labels=data.classes)
    return path


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


# help


def test_help_lists_every_command(call):
    code, out, _ = call("--help")

    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert "gossamer demo" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(call, command):
    code, out, _ = call(command, "--help")

    assert code == 0
    assert f"Example: gossamer {command}" in " ".join(out.replace("│", " ").split())
    assert "--json" in out


def test_the_version_is_that_of_the_package(call):
    assert call("--version")[1].strip() == f"gossamer {gs.__version__}"


# errors


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["inspec", "x"], "Did you mean 'inspect'"),
        (["inspect", "--jsno", "x"], "--json"),
        (["inspect"], "Missing argument"),
        (["bench", "x", "--threads", "none"], "--threads"),
        (["run", "model.goss"], "Missing argument"),
    ],
)
def test_wrong_usage_exits_with_2_and_a_hint(call, words, hint):
    code, out, err = call(*words)

    assert code == 2
    assert hint in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["inspect", "missing.goss"], "missing.goss"),
        (["bench", "missing.goss"], "missing.goss"),
        (["run", "missing.goss", "x.png"], "missing.goss"),
        (["unpack", "missing.goss"], "missing.goss"),
        (["compress", "lenet6", "--recipe", "demo"], "lenet5"),
        (["compress", "lenet5", "--recipe", "dem"], "Did you mean 'demo'"),
        (["compress", "lenet5", "--recipe", "missing.yaml"], "missing.yaml"),
        (["compress", "lenet5", "--recipe", "demo", "--data", "mnits"], "Did you mean 'mnist'"),
        (["compress", "lenet5", "--recipe", "demo", "--set", "Pruen.density=0.1"], "Did you mean 'Prune'"),
        (["compress", "lenet5", "--recipe", "demo", "--set", "Prune.densty=0.1"], "Did you mean 'density'"),
        (["compress", "lenet5", "--recipe", "demo", "--set", "Prune"], "expected STEP.OPTION=VALUE"),
    ],
)
def test_an_error_is_one_line_and_exits_with_1(call, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)

    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert hint in err
    assert "Traceback" not in err
    assert out == ""


def test_debug_shows_the_trace_wherever_it_stands(tmp_path):
    for words in (["--debug", "inspect", "missing"], ["inspect", "missing", "--debug"]):
        with pytest.raises(gs.GossamerError):
            main(words)


def test_a_damaged_file_is_named(call, packed, tmp_path):
    damaged = tmp_path / "damaged.goss"
    data = bytearray(packed.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(data)

    code, _, err = call("run", damaged, "x.png")

    assert code == 1
    assert str(damaged) in err
    assert "checksum" in err


def test_a_full_disk_and_a_closed_folder_are_one_line(call, packed, tmp_path, monkeypatch):
    code, _, err = call("unpack", packed, "-o", tmp_path / "missing" / "model.onnx")
    assert (code, err.count("\n")) == (1, 1)
    assert "model.onnx" in err

    code, _, err = call("unpack", packed, "-o", "/dev/full/model.onnx")
    assert (code, err.count("\n")) == (1, 1)


def test_an_error_nobody_foresaw_is_still_one_line(call, monkeypatch):
    monkeypatch.setattr("gossamer.artifact.inspect", lambda path: 1 / 0)

    code, _, err = call("inspect", "x.goss")

    assert code == 1
    assert err.startswith("error: unexpected ZeroDivisionError: division by zero. Add --debug to see where")
    assert err.count("\n") == 1


def test_brackets_in_an_error_are_shown_as_they_are(call):
    assert "[/bold].goss" in call("inspect", "[/bold].goss")[2]


# inspect


def test_inspect_accounts_for_every_byte(call, packed):
    code, out, _ = call("inspect", packed, "--json")
    found = json.loads(out)

    assert code == 0
    assert (found["schema"], found["command"]) == (1, "inspect")
    size = packed.stat().st_size
    assert found["file_bytes"] == size
    assert sum(row["bytes"] for row in found["head"] + found["tensors"]) == size
    for tensor in found["tensors"]:
        assert sum(field["bytes"] for field in tensor["fields"]) == tensor["bytes"]
        assert tensor["bits_per_weight"] == pytest.approx(8 * tensor["bytes"] / np.prod(tensor["shape"]))
        assert all(field["coder"] for field in tensor["fields"])
    assert {tensor["name"] for tensor in found["tensors"]} == {"1.weight", "1.bias"}
    assert found["metadata"]["labels"] == [str(i) for i in range(10)]


def test_inspect_as_text_ends_with_the_size_of_the_file(call, packed):
    _, out, _ = call("inspect", packed)

    assert "1.weight" in out
    assert f"{packed.stat().st_size:,}" in out
    assert "100.0%" in out


# unpack


def test_unpack_writes_onnx_that_gives_the_same_outputs(call, packed, tmp_path):
    target = tmp_path / "model.onnx"
    code, out, _ = call("unpack", packed, "-o", target, "--json")

    assert code == 0
    assert json.loads(out)["output_bytes"] == target.stat().st_size
    x = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    plain = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    [expected] = plain.run(None, {plain.get_inputs()[0].name: x})
    np.testing.assert_allclose(gs.open(packed)(x), expected, atol=1e-5)
    assert list(tmp_path.iterdir()) == [target]


# run


@pytest.fixture
def digit(tmp_path):
    """A test digit as a picture, and its preprocessed form."""
    data = gs.load_data("digits")
    raw, _ = data.test.take(slice(0, 1))
    path = tmp_path / "digit.png"
    Image.fromarray(raw[0]).save(path)
    return path, data.preprocess(raw)


def test_run_on_a_picture_gives_the_probabilities_of_the_outputs(call, packed, digit):
    path, x = digit
    scores = gs.open(packed)(x)[0].astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum()

    code, out, _ = call("run", packed, path, path, "--top", 3, "--json")
    results = json.loads(out)["results"]

    assert code == 0
    assert len(results) == 2
    found = results[0]["classes"]
    assert [row["index"] for row in found] == np.argsort(-expected)[:3].tolist()
    assert [row["probability"] for row in found] == pytest.approx(
        np.sort(expected)[::-1][:3].tolist(), rel=1e-5
    )
    assert found[0]["label"] == str(found[0]["index"])


def test_run_on_a_picture_as_text(call, packed, digit):
    _, out, _ = call("run", packed, digit[0])

    lines = out.strip().splitlines()
    assert lines[0] == str(digit[0])
    assert len(lines) == 6
    assert all(re.fullmatch(r"\s+[\d.]+%  \d", line) for line in lines[1:])


def test_run_on_an_array_writes_an_array(call, packed, digit, tmp_path):
    _, x = digit
    np.save(tmp_path / "x.npy", x)

    code, out, _ = call("run", packed, tmp_path / "x.npy", "--json")

    assert code == 0
    [result] = json.loads(out)["results"]
    np.testing.assert_array_equal(np.load(result["output"]), gs.open(packed)(x))
    assert result["output"] == str(tmp_path / "x.out.npy")


class Two(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": left + right, "product": left * right * self.scale}

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def test_run_with_several_inputs_and_outputs(call, tmp_path):
    gs.pack(Two().eval(), tmp_path / "two.goss", (torch.ones(2, 3), torch.ones(2, 3)))
    left, right = np.full((2, 3), 2, np.float32), np.full((2, 3), 3, np.float32)
    np.save(tmp_path / "l.npy", left)
    np.save(tmp_path / "r.npy", right)
    np.savez(tmp_path / "both.npz", left=left, right=right)

    for inputs in ([tmp_path / "l.npy", tmp_path / "r.npy"], [tmp_path / "both.npz"]):
        code, out, _ = call("run", tmp_path / "two.goss", *inputs, "-o", tmp_path / "out", "--json")
        assert code == 0
        [result] = json.loads(out)["results"]
        found = np.load(result["output"])
        np.testing.assert_array_equal(found["sum"], left + right)
        np.testing.assert_array_equal(found["product"], left * right)

    code, _, err = call("run", tmp_path / "two.goss", tmp_path / "l.npy")
    assert code == 1
    assert "1 arrays were given for 2 inputs" in err


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.txt"])
def test_run_names_an_input_it_cannot_read(call, packed, tmp_path, name):
    (tmp_path / name).write_bytes(b"not what the name says")

    code, _, err = call("run", packed, tmp_path / name)

    assert code == 1
    assert name in err
    assert err.count("\n") == 1


def test_run_refuses_pickles(call, packed, tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)

    code, _, err = call("run", packed, tmp_path / "evil.npy")

    assert code == 1
    assert "evil.npy" in err


# bench


def test_bench_measures_speed_accuracy_and_explains(call, packed):
    code, out, _ = call(
        "bench", packed, "--data", "digits", "--seconds", 0.1, "--threads", 1, "--explain", "--json"
    )
    found = json.loads(out)

    assert code == 0
    assert found["file_bytes"] == packed.stat().st_size
    assert found["accuracy"]["total"] == 2000
    assert found["latency"]["threads"] == 1
    assert found["latency"]["ratio_of_medians"] > 0
    assert [row["weight"] for row in found["layers"]] == ["1.weight"]
    assert found["machine"]["cores"] >= 1


def test_bench_as_text_names_both_sides(call, packed):
    _, out, _ = call("bench", packed, "--seconds", 0.1, "--explain")

    assert "ONNX Runtime fp32" in out
    assert "gossamer" in out
    assert "1.weight" in out


# compress


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_compress_writes_the_file_and_its_reports(call, recipe, tmp_path):
    code, out, err = call("compress", "--recipe", recipe, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    report = json.loads(out)

    assert (report["schema"], report["command"]) == (1, "compress")
    assert report["after"]["file_bytes"] == (tmp_path / "run" / "model.goss").stat().st_size
    assert report["after"]["accuracy"]["total"] == 2000
    for name in report["files"].values():
        assert os.path.getsize(name) > 0

    code, out, _ = call(
        "compress", "--recipe", recipe, "--out", tmp_path / "run"
    )  # finished: only reported again
    assert code == 0
    assert "report.html" in out
    assert "95 % interval" in out


def test_the_list_of_recipes_names_their_steps(call):
    code, out, _ = call("compress", "--list")
    assert code == 0
    assert "demo" in out
    assert "Prune > Share > Finetune" in out

    known = json.loads(call("compress", "--list", "--json")[1])["recipes"]
    assert known["demo"]["data"] == "digits"


def test_set_changes_one_option_of_a_step():
    tree = change(
        json.loads(json.dumps(TINY)), ["prune.density.fc1=0.1", "Share.bits=3", "3.lr=1e-3", "train.epochs=2"]
    )

    assert tree["steps"] == [
        {"Prune": {"density": {"fc1": 0.1}}},
        {"Share": {"bits": 3}},
        {"Finetune": {"epochs": 1, "lr": "1e-3"}},  # YAML 1.1 wants 1.0e-3; the recipe's check reads both
    ]
    assert tree["train"] == {"epochs": 2}
    assert change({"steps": []}, ["threads=1"])["threads"] == 1


@pytest.mark.parametrize(
    "setting", ["Share", "=3", "Share.=3", ".bits=3", "9.bits=3", "0.bits=1", "Share.bits=[1"]
)
def test_a_setting_that_cannot_be_read_is_refused(setting):
    with pytest.raises(OptionError, match="--set"):
        change(json.loads(json.dumps(TINY)), [setting])


def test_a_recipe_with_weights_is_not_given_to_another_model(call, tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TINY, "weights": "lenet300_100_mnist"}))

    code, _, err = call("compress", "lenet5", "--recipe", tmp_path / "r.yaml")

    assert code == 1
    assert "Give --weights for lenet5" in err


# paper


RESULT = {
    "schema": 1,
    "paper": "deep-compression",
    "claims": [
        {
            "name": "size",
            "published": 40,
            "claim": ">= 40",
            "ours": 51.2,
            "spread": [50.9, 51.6],
            "seeds": [0, 1, 2],
        }
        | {"holds": True},
        {
            "name": "error",
            "published": 0.0158,
            "claim": "<= 1.58 %",
            "ours": 0.0171,
            "spread": None,
            "seeds": 1,
        }
        | {"holds": False},
    ],
}


RESULT |= {
    "tables": {
        "lenet300": [
            {"layer": "fc1", "published": {"weights kept %": 8, "code bits": 6}}
            | {"ours": {"weights kept %": 8.01, "code bits": 5.5}}
        ]
    }
}


def test_paper_shows_every_claim_and_its_verdict(call, monkeypatch):
    known = types.ModuleType("gossamer.papers")
    known.names = lambda: ["deep-compression"]  # type: ignore[attr-defined]
    known.run_paper = lambda name, folder, progress: RESULT  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gossamer.papers", known)
    monkeypatch.setattr(gs, "papers", known, raising=False)

    _, out, _ = call("paper", "deep-compression")
    assert "1 of 2 claims hold" in out
    assert "50.9 to 51.6" in out
    assert "8.01" in out
    assert "no" in out
    assert json.loads(call("paper", "deep-compression", "--json")[1])["claims"] == RESULT["claims"]
    assert call("paper", "--list")[1].split() == ["deep-compression"]
    assert "deep-compression" in call("paper")[2]


# as a process


def gossamer(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gossamer", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_commands_for_packed_files_work_where_torch_is_absent(packed, digit, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from gossamer.cli import main\n"
        f"for words in (['inspect', {str(packed)!r}], ['run', {str(packed)!r}, {str(digit[0])!r}],\n"
        f"    ['unpack', {str(packed)!r}, '-o', {str(tmp_path / 'm.onnx')!r}],\n"
        f"    ['bench', {str(packed)!r}, '--seconds', '0.1', '--data', 'digits'], ['compress', 'lenet5']):\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: print('code', stop.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert re.findall(r"^code (\d)", done.stdout, re.MULTILINE) == ["0", "0", "0", "0", "1"]
    assert done.stderr.count("\n") == 1
    assert "needs the package 'torch'" in done.stderr
    assert "pip install 'gossamer[compress]'" in done.stderr


def test_output_in_a_pipe_has_no_escape_codes(packed):
    done = gossamer("inspect", packed)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout + gossamer("inspect", "missing").stderr


def test_no_color_is_respected_on_a_terminal(packed):
    import pty

    for variable, coloured in (({"NO_COLOR": "1"}, False), ({}, True)):
        parent, child = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")} | {
            "TERM": "xterm-256color"
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "gossamer", "inspect", "missing"], stderr=child, env=environment | variable
        )
        process.wait(30)
        said = os.read(parent, 4096).decode()
        os.close(parent)
        os.close(child)
        assert ("\x1b[1;31m" in said) == coloured


def test_a_reader_that_leaves_early_is_no_error(packed):
    done = subprocess.run(
        f"{sys.executable} -m gossamer inspect {packed} | head -1; exit ${{PIPESTATUS[1]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0
    assert done.stderr == ""


def test_an_interrupted_run_says_how_to_resume_and_does(recipe, tmp_path):
    words = [
        sys.executable,
        "-m",
        "gossamer",
        "compress",
        "--recipe",
        str(recipe),
        "--out",
        str(tmp_path / "run"),
    ]
    # what a shell starts in the background ignores interrupts, and so would this process
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heard
    )
    while process.poll() is None and not (tmp_path / "run").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert err.endswith("interrupted: run the same command again to resume where it stopped.\n")
    assert "Traceback" not in err
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_demo_ends_with_its_table_and_page(tmp_path):
    done = gossamer("demo", "--out", tmp_path / "demo")

    assert done.returncode == 0, done.stderr
    assert "zstd -19" in done.stdout
    assert str(tmp_path / "demo" / "report.html") in done.stdout.replace("\n", "")
