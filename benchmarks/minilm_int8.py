"""A pretrained sentence encoder in 8 and 4 bits, beside onnxruntime.quantization on the same network.

    taskset -c 0 python benchmarks/minilm_int8.py [--sentences 500] [--seconds 3]

MiniLM (tests/minilm.py; 22.7 M weights, padded to 64 tokens). The similarity of a sentence is the cosine between its
embedding and that of the float network; `neighbours` is the share of sentences whose nearest other sentence is the same as
in float. Sentences are 500 of the plays in the shared data; calibration uses 64 others. Files run in ONNX Runtime with one
thread; speed is the ratio of medians of calls in turn, one sentence each.

    8 bits           Calibrate(observer="mse"), Quantize(bits=8, granularity="channel"): all 36 linear layers on integers
    8 bits, four float   the same with the four layers most sensitive to rounded inputs computed in floats (their weights stay
                     8 bits in the file)
    4-bit weights    Quantize(bits=4, granularity="group"), RoundWeights: activations are floats
    quantize_static  per channel, min-max and percentile, on the same 64 sentences; quantize_dynamic: per channel

Claim: mean similarity of the 8-bit networks at least 0.99, file at most 0.25 of float. Result: results/minilm-int8.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

import gossamer as gs
from gossamer import measure
from gossamer.measure.latency import INPUTS, interleave

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from int8 import Reader, session

from minilm import Tokens, encoder, sentences, text_data, tokenize

LENGTH, CALIBRATION = 64, 64
SENSITIVE = [
    "encoder.bert.encoder.layer.0.output.dense",
    *(f"encoder.bert.encoder.layer.{layer}.intermediate.dense" for layer in (2, 3, 4)),
]
RESULT = Path(__file__).parent / "results" / "minilm-int8.json"
OURS: dict[str, list[gs.steps.Step]] = {
    "8 bits": [
        gs.Calibrate(samples=CALIBRATION, observer="mse"),
        gs.Quantize(bits=8, granularity="channel", fit="max"),
    ],
    "8 bits, four float": [
        gs.Calibrate(samples=CALIBRATION, observer="mse", skip=SENSITIVE),
        gs.Quantize(bits=8, granularity="channel", fit="max"),
    ],
    "4-bit weights": [
        gs.Quantize(bits=4, granularity="group", group=32),
        gs.RoundWeights(samples=CALIBRATION // 2),
    ],
}
THEIRS = {
    "quantize_static, min-max": CalibrationMethod.MinMax,
    "quantize_static, percentile": CalibrationMethod.Percentile,
}


def embed(run: Callable[[np.ndarray], Any], tokens: np.ndarray) -> np.ndarray:
    """Embeddings [N, 384], in batches of 10."""
    return np.concatenate([run(tokens[at : at + 10]) for at in range(0, len(tokens), 10)])


def runner(source: Any) -> Callable[[np.ndarray], Any]:
    """A file of either kind as a function."""
    if str(source).endswith(".goss"):
        return gs.open(source, threads=1)
    running = session(str(source))
    name = running.get_inputs()[0].name
    return lambda x: running.run(None, {name: x})[0]


def nearest(embeddings: np.ndarray) -> np.ndarray:
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -1)
    return similarity.argmax(1)


def scored(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How alike embeddings are to those of the float network."""
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    return {
        "similarity": float(cosine.mean()),
        "similarity_5_percent": float(np.percentile(cosine, 5)),
        "neighbours": float((nearest(found) == nearest(wanted)).mean()),
    }


def export(model: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """What quantize_static starts from: torch's own export, then ONNX Runtime's pre-processing."""
    raw = path.with_name("raw.onnx")
    free = ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        model, (example,), str(raw), dynamo=True, dynamic_shapes=free, external_data=False, verbose=False
    )
    quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)


def networks(
    folder: Path, model: torch.nn.Module, texts: Sequence[str], example: torch.Tensor
) -> dict[str, Path]:
    """Every file, by name."""
    data = text_data(list(texts), length=LENGTH)
    files = {"float32": folder / "float.onnx"}
    gs.pack(model, folder / "float.goss", example)
    files["float32"].write_bytes(gs.unpack(folder / "float.goss"))
    for number, (name, steps) in enumerate(OURS.items()):
        began, chosen = time.monotonic(), copy.deepcopy(model)
        gs.apply(chosen, steps, data)
        files[name] = gs.pack(chosen, folder / f"{number}.goss", example).path
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    exported = folder / "exported.onnx"
    export(model, example, exported)
    name_in = session(str(exported)).get_inputs()[0].name
    tokens = data.train.take(slice(0, CALIBRATION))[0]
    for number, (name, method) in enumerate(THEIRS.items()):
        files[name] = folder / f"static{number}.onnx"
        quantize_static(
            str(exported),
            str(files[name]),
            Reader(tokens, name_in),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=method,
        )
        print(name, flush=True)
    files["quantize_dynamic"] = folder / "dynamic.onnx"
    quantize_dynamic(str(exported), str(files["quantize_dynamic"]), per_channel=True)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed calls per network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Tokens(encoder()).eval()
    texts = sentences(options.sentences + CALIBRATION)
    tokens = tokenize(texts[: options.sentences], length=LENGTH)[0]
    with tempfile.TemporaryDirectory() as place:
        files = networks(Path(place), model, texts[options.sentences :], tokens[:2])
        running = {name: runner(path) for name, path in files.items()}
        wanted = embed(running["float32"], tokens.numpy())
        rows: dict[str, dict[str, Any]] = {}
        for name, path in files.items():
            rows[name] = scored(embed(running[name], tokens.numpy()), wanted)
            rows[name]["bytes"] = path.stat().st_size
            print(name, rows[name], flush=True)
        inputs = [tokens[index : index + 1].numpy() for index in range(INPUTS)]
        timed = interleave(running, inputs, seconds=options.seconds * len(running))
    for name, value in timed.items():
        rows[name] |= {"median_ms": value.median_ms}
        rows[name]["speed_to_float32"] = timed["float32"].median_ms / value.median_ms
    static = max(rows[name]["similarity"] for name in THEIRS)
    claims = [
        claim("mean similarity, 8 bits", rows["8 bits"]["similarity"], least=0.99),
        claim(
            "mean similarity, 8 bits, four layers float", rows["8 bits, four float"]["similarity"], least=0.99
        ),
        claim("above quantize_static", rows["8 bits"]["similarity"] - static, least=0.0),
        claim("bytes / float32", rows["8 bits"]["bytes"] / rows["float32"]["bytes"], most=0.25),
        claim(
            "bytes / float32, 4-bit weights",
            rows["4-bit weights"]["bytes"] / rows["float32"]["bytes"],
            most=0.14,
        ),
        claim("speed / float32, 8 bits", rows["8 bits"]["speed_to_float32"], least=1.5),
    ]
    result = {"schema": 1, "sentences": options.sentences, "calibration": CALIBRATION, "tokens": LENGTH}
    result |= {"networks": rows, "claims": claims, "machine": measure.machine.describe()}
    result |= {"versions": measure.machine.versions(), "date": measure.machine.today()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in claims:
        print("holds" if row["holds"] else "FAILS", row["name"], f"{row['value']:.4g}")


def claim(
    name: str, value: float, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    holds = (least is None or value >= least) and (most is None or value <= most)
    return {"name": name, "value": value, "at_least": least, "at_most": most, "holds": holds}


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(3)
    main()
