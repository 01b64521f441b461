"""8-bit networks without training, beside onnxruntime.quantization on the same network and the same calibration inputs.

    python benchmarks/int8.py [NETWORK ...] [--samples 512] [--seconds 3] [--only-speed]

For each network: the float32 file, `quantize_static` (on torch's own export, pre-processed as its authors ask) in every
calibration method and with scales per tensor and per channel, and ours with weights of 8 bits per channel and of 6
coded bits. Each of ours has the observer whose logits are nearest to the float ones on the validation split; the claims are
about the small one. Ours meets the test split once; of theirs the best on the test split counts. Accuracy is that of
files, in ONNX Runtime or in Gossamer's session, on the whole test split (of SqueezeNet: the share of answers that stay those
of the float network); sizes are those of files; speed is the ratio of medians of two sessions
that take turns, batch 1, so that each finds the caches as the other left them.

Claims (per network): accuracy at least the best of quantize_static - 0.1 points; bytes at most 0.75 of its file; speed at
least 0.95 of its speed. Over all: accuracy at least its best on 4 networks; VGG-small 2.5 times as fast as float32.
Results: benchmarks/results/int8.json; the files stay in runs/int8, for --only-speed. Networks that are trained here first
(mobilenet-small, vgg-small) take their weights from the run folder runs/papers.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

import gossamer as gs
from gossamer import measure, recipe, runtime
from gossamer.measure.accuracy import accuracy
from gossamer.measure.latency import INPUTS, interleave
from gossamer.run import compress

TRAIN = {
    "mobilenet-small": {"epochs": 3, "lr": 0.1, "weight_decay": 1e-4, "optimizer": "sgd"},
    "vgg-small": {
        "epochs": 1,
        "lr": 0.001,
        "weight_decay": 0.0,
        "optimizer": "adam",
    },  # its SGD twin diverged at 0.02
}
NETWORKS = {
    "lenet5": ("mnist", "lenet5_caffe_mnist"),
    "resnet20": ("cifar10", "resnet20_cifar10"),
    "resnet32": ("cifar10", "resnet32_cifar10"),
    "mobilenet-small": ("cifar10", None),
    "vgg-small": ("cifar10", None),
    "squeezenet1_1": ("imagenet-sample", "squeezenet1_1_imagenet_fp16"),
}
OBSERVERS = ("minmax", "percentile", "mse")
WEIGHTS = {  # steps before and after Calibrate
    "8 bits per channel": ([], [gs.Quantize(bits=8, granularity="channel", fit="max")]),
    "6 coded bits": ([gs.Quantize(rate=6.0, bits=8)], []),
}
SMALL = "6 coded bits"
PROBES = 500  # validation inputs that choose the observer
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
FILES = Path("runs/int8")
RESULT = Path(__file__).parent / "results" / "int8.json"


class Reader(CalibrationDataReader):
    """The calibration inputs, in equal batches of at most 32: its histograms take no other."""

    def __init__(self, inputs: np.ndarray, name: str) -> None:
        size = max(size for size in range(1, 33) if len(inputs) % size == 0)
        self.batches = iter([{name: inputs[start : start + size]} for start in range(0, len(inputs), size)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def load(name: str) -> tuple[Any, torch.nn.Module]:
    """The data and the float network; one without public weights is trained by its recipe."""
    (spec, weights), data = NETWORKS[name], load_data(name)
    if weights is not None:
        model = gs.load_model(name, weights)
        return (_relabelled(data, model) if spec == "imagenet-sample" else data), model
    train = {**TRAIN[name], "augment": "flip-crop", "schedule": "cosine"}
    chosen = recipe.parse(
        {"model": name, "data": spec, "threads": 1, "train": train, "steps": ["FreezeNorms"]}
    )
    original, _, _ = compress(chosen, data, Path("runs/papers/store"), progress=False, tell=print)
    return data, original


def load_data(name: str) -> Any:
    """The network's data, as its weights expect it: the public LeNet-5 takes pixels in [0, 1]."""
    data = gs.load_data(NETWORKS[name][0])
    if name == "lenet5":
        return dataclasses.replace(data, preprocess=gs.Preprocess(scale=1 / 255, color="L"))
    return data


def _relabelled(data: Any, model: torch.nn.Module) -> Any:
    """The test split with the answers of the float network as its labels."""
    answers = [logits(model, x).argmax(1) for x, _ in data.test.batches(50, preprocess=data.preprocess)]
    return dataclasses.replace(
        data, test=dataclasses.replace(data.test, labels=np.concatenate(answers).astype(np.int64))
    )


def session(source: str | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def score(source: Any, split: Any, data: Any) -> float:
    """Right answers in percent, of an ONNX file or of a Gossamer session."""
    if isinstance(source, runtime.Session):
        return 100 * accuracy(source, split, data.preprocess).value
    running = session(source)
    name = running.get_inputs()[0].name
    return 100 * accuracy(lambda x: running.run(None, {name: x})[0], split, data.preprocess).value


def theirs(folder: Path, inputs: np.ndarray, name: str, data: Any) -> list[dict[str, Any]]:
    """Every way of quantize_static."""
    rows = []
    for method, how in METHODS.items():
        for per_channel in (False, True):
            path = folder / f"{method}-{per_channel}.onnx"
            quantize_static(
                str(folder / "exported.onnx"),
                str(path),
                Reader(inputs, name),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=how,
                calibration_cache_path=folder / f"{method}.json",
            )
            row = {"method": method, "per_channel": per_channel, "file": path.name}
            row |= {"bytes": path.stat().st_size, "accuracy": score(str(path), data.test, data)}
            print("   onnxruntime", row, flush=True)
            rows.append(row)
    return rows


def ours(folder: Path, model: torch.nn.Module, data: Any, samples: int) -> list[dict[str, Any]]:
    """Two ways of rounding weights, each with the observer whose logits are nearest on the validation split."""
    rows = []
    example = torch.from_numpy(data.batch(2))
    probe = data.preprocess(data.validation.inputs[np.arange(min(PROBES, len(data.validation)))])
    wanted = logits(model, probe)
    for weights, (first, rounding) in WEIGHTS.items():
        base = copy.deepcopy(model)
        normed = any(isinstance(module, torch.nn.BatchNorm2d) for module in base.modules())
        gs.apply(base, [*([gs.FreezeNorms()] if normed else []), *first], data, example=example)
        tried: dict[str, torch.nn.Module] = {}
        errors = {}
        began = time.monotonic()
        for observer in OBSERVERS:
            steps = [gs.Calibrate(samples=samples, observer=observer), *rounding]
            tried[observer] = gs.apply(copy.deepcopy(base), steps, data, example=example)
            found = logits(tried[observer], probe)
            errors[observer] = float(np.square(found - wanted).mean() / np.square(wanted).mean())
        observer = min(errors, key=lambda name: errors[name])
        path = folder / f"ours-{len(rows)}.goss"
        gs.apply(tried[observer], gs.CorrectBias(samples=samples), data, example=example)
        gs.pack(tried[observer], path, data.batch(2))
        row = {"weights": weights, "observer": observer, "file": path.name, "bytes": path.stat().st_size}
        row |= {"seconds": time.monotonic() - began, "logit_errors": errors}
        row["accuracy"] = score(gs.open(path, threads=1), data.test, data)
        print("   gossamer", row, flush=True)
        rows.append(row)
    return rows


@torch.no_grad()
def logits(model: torch.nn.Module, inputs: np.ndarray) -> np.ndarray:
    """Outputs of a torch module, 50 inputs at a time."""
    return np.concatenate([model.eval()(part).numpy() for part in torch.from_numpy(inputs).split(50)])


def speed(folder: Path, mine: str, other: str, data: Any, seconds: float) -> list[dict[str, Any]]:
    """Pairs of sessions in turn, batch 1, for 1 and 2 threads."""
    rows: list[dict[str, Any]] = []
    inputs = [data.batch(8)[index : index + 1] for index in range(INPUTS)]
    for threads in (1, 2):
        row: dict[str, Any] = {"threads": threads}
        for name, file in (("quantize_static", other), ("float32", "float.onnx")):
            found = interleave(
                {"gossamer": gs.open(folder / mine, threads=threads), name: _caller(folder / file, threads)},
                inputs,
                seconds=seconds,
            )
            medians = {key: value.median_ms for key, value in found.items()}
            row |= {f"ratio_to_{name}": medians[name] / medians["gossamer"], f"beside_{name}_ms": medians}
        print("   speed", row, flush=True)
        rows.append(row)
    return rows


def _caller(path: Path, threads: int) -> Callable[[np.ndarray], Any]:
    running = session(str(path), threads)
    name = running.get_inputs()[0].name
    return lambda x: running.run(None, {name: x})


def network(name: str, samples: int, seconds: float) -> dict[str, Any]:
    data, model = load(name)
    calibration = _calibration(data, samples)
    folder = FILES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    gs.pack(model, folder / "float.goss", data.batch(2))
    (folder / "float.onnx").write_bytes(gs.unpack(folder / "float.goss"))
    _export(model, data, folder / "exported.onnx")
    name_in = session(str(folder / "exported.onnx")).get_inputs()[0].name
    before = score(str(folder / "float.onnx"), data.test, data)
    print(f"{name}: float32 {before:.2f} %", flush=True)
    mine = ours(folder, model, data, samples)
    other = theirs(folder, calibration, name_in, data)
    chosen = min(mine, key=lambda row: row["weights"] != SMALL)
    best = max(other, key=lambda row: row["accuracy"])
    timed = speed(folder, chosen["file"], best["file"], data, seconds) if seconds else []
    floats = (folder / "float.onnx").stat().st_size
    return {
        "float32": {"accuracy": before, "bytes": floats},
        "gossamer": mine,
        "quantize_static": other,
        "chosen": {key: chosen[key] for key in ("weights", "observer", "file")},
        "accuracy": chosen["accuracy"],
        "best_of_quantize_static": best,
        "points_above_quantize_static": chosen["accuracy"] - best["accuracy"],
        "bytes_ratio": chosen["bytes"] / min(row["bytes"] for row in other),
        "speed": timed,
    }


def _export(model: torch.nn.Module, data: Any, path: Path) -> None:
    """What a user of quantize_static starts from: torch's own export with its optimizer, then ORT's pre-processing."""
    raw = path.with_name("raw.onnx")
    example = (torch.from_numpy(data.batch(2)),)
    free = ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        model.eval(), example, str(raw), dynamo=True, dynamic_shapes=free, external_data=False, verbose=False
    )
    quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)


def _calibration(data: Any, samples: int) -> np.ndarray:
    """The inputs that Calibrate sees with seed 0."""
    count = min(samples, len(data.train))
    rows = np.sort(np.random.default_rng(0).choice(len(data.train), count, replace=False))
    return np.asarray(data.preprocess(data.train.inputs[rows]))


def judge(found: dict[str, Any]) -> list[dict[str, Any]]:
    claims = []

    def claim(name: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        holds = (least is None or value >= least) and (most is None or value <= most)
        claims.append({"name": name, "value": value, "at_least": least, "at_most": most, "holds": holds})

    for name, row in found.items():
        claim(
            f"{name}: points above the best of quantize_static",
            row["points_above_quantize_static"],
            least=-0.1,
        )
        claim(f"{name}: bytes / quantize_static's smallest file", row["bytes_ratio"], most=0.75)
        for timed in row["speed"]:
            threads = timed["threads"]
            claim(
                f"{name}: speed / quantize_static, {threads} threads",
                timed["ratio_to_quantize_static"],
                least=0.95,
            )
            least = 2.5 if name == "vgg-small" else 1.0
            claim(f"{name}: speed / float32, {threads} threads", timed["ratio_to_float32"], least=least)
    better = sum(row["points_above_quantize_static"] >= 0 for row in found.values())
    claim("networks with at least quantize_static's best accuracy", better, least=4)
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed calls per comparison; 0: none")
    parser.add_argument("--only-speed", action="store_true", help="time the files of an earlier run again")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(RESULT.read_text(encoding="utf-8"))["networks"] if RESULT.is_file() else {}
    for name in options.networks:
        if options.only_speed:
            data, (mine, other) = (
                load_data(name),
                (known[name]["chosen"], known[name]["best_of_quantize_static"]),
            )
            known[name]["speed"] = speed(FILES / name, mine["file"], other["file"], data, options.seconds)
        else:
            known[name] = network(name, options.samples, options.seconds)
        ordered = {key: known[key] for key in NETWORKS if key in known}
        result = {
            "schema": 1,
            "samples": options.samples,
            "networks": ordered,
            "claims": judge(ordered),
            "machine": measure.machine.describe(),
            "versions": measure.machine.versions(),
            "date": measure.machine.today(),
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in judge(known):
        print("holds" if row["holds"] else "FAILS", row["name"], f"{row['value']:.4g}")


if __name__ == "__main__":
    main()
