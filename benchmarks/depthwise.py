"""A depthwise network with one scale per tensor: what rounding to 8 bits costs, and what comes back without training.

    python benchmarks/depthwise.py [--images 10000]      writes benchmarks/results/depthwise.json

mobilenet-small, trained on CIFAR-10 by its recipe (see int8.py), with weights of 8 bits on one grid per tensor and
activations of 8 bits on grids of 256 training inputs:

    plain        rounded as it is
    equalized    ranges of neighbouring layers balanced first (Equalize; every ReLU6 that is in the way becomes ReLU)
    both         and biases take back the mean error (CorrectBias, 128 inputs), as the paper has it
    per channel  one scale per output channel instead, for comparison

once for the trained network, and once after every channel inside a block was multiplied by 10^u, u uniform in [-1, 1], and
the layer that reads it divided by the same: the same function (with ReLU for ReLU6), with the ranges of channels that the
paper found in MobileNetV2. Accuracies are those of packed files, in ONNX Runtime, on the test split.

Claim: of the points that one scale per tensor loses, equalization and bias correction bring back at least 80 %. Where
nothing is lost there is nothing to bring back: the share is stated where the loss is at least one point.
Source: Nagel, van Baalen, Blankevoort, Welling, ICCV 2019, arXiv:1906.04721, tables 1 to 3.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from int8 import load
from torch import nn

import gossamer as gs
from gossamer.data import Data
from gossamer.measure import machine
from gossamer.measure.accuracy import accuracy
from gossamer.methods.cross_layer_equalization import replace_relu6_
from gossamer.steps import Step

RESULT = Path(__file__).parent / "results" / "depthwise.json"
LEAST_LOSS = 1.0  # points
PER_TENSOR = gs.Quantize(bits=8, granularity="tensor", fit="max")
CALIBRATE = gs.Calibrate(samples=256)
EQUALIZE = gs.Equalize(relu6="replace")
WAYS: dict[str, list[Step]] = {
    "float": [],
    "plain": [CALIBRATE, PER_TENSOR],
    "equalized": [EQUALIZE, CALIBRATE, PER_TENSOR],
    "both": [EQUALIZE, CALIBRATE, PER_TENSOR, gs.CorrectBias(samples=128)],
    "per channel": [CALIBRATE, gs.Quantize(bits=8, granularity="channel", fit="max")],
}


def spread(model: nn.Module, seed: int) -> None:
    """Give the channels inside every block other ranges, and the layers that read them the inverse, in place."""
    generator = torch.Generator().manual_seed(seed)
    for block in model.blocks:
        layers = [block.expand[0], block.depthwise[0], block.project[0]]
        for first, second in pairwise(layers):
            factor = 10 ** (2 * torch.rand(first.out_channels, generator=generator) - 1)
            with torch.no_grad():
                first.weight *= factor.reshape(-1, 1, 1, 1)
                first.bias *= factor
                second.weight /= factor.reshape((-1, 1, 1, 1) if second.groups > 1 else (1, -1, 1, 1))


def score(model: nn.Module, steps: list[Step], data: Data, images: int) -> float:
    """Right answers in percent, of the packed file."""
    model = copy.deepcopy(model)
    if steps:
        gs.apply(model, steps, data)
    with TemporaryDirectory() as folder:
        gs.pack(model, Path(folder) / "net.goss", data.batch(2))
        test = data.test.subset(range(min(images, len(data.test))))
        return 100 * accuracy(gs.open(Path(folder) / "net.goss"), test, data.preprocess).value


def measure(model: nn.Module, data: Data, images: int) -> dict[str, Any]:
    """Accuracies of all ways, and the share of the loss that came back."""
    found: dict[str, Any] = {}
    for name, steps in WAYS.items():
        found[name] = round(score(model, steps, data, images), 2)
        print(f"   {name}: {found[name]:.2f} %", flush=True)
    lost = found["float"] - found["plain"]
    enough = lost >= LEAST_LOSS
    back = {
        name: round((found[name] - found["plain"]) / lost, 4)
        for name in WAYS
        if name not in ("float", "plain")
    }
    return {"accuracy": found, "points_lost": round(lost, 2), "share_back": back if enough else None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000, help="test inputs (default 10000)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data, trained = load("mobilenet-small")
    gs.apply(trained.eval(), gs.FreezeNorms(), example=data.preprocess(data.train.take(np.arange(2))[0]))
    plain = copy.deepcopy(trained)
    replace_relu6_(plain, [path for path, module in plain.named_modules() if isinstance(module, nn.ReLU6)])
    spread(plain, seed=0)
    networks = {"trained": trained, "channels spread": plain}
    measured = {}
    for name, model in networks.items():
        print(name, flush=True)
        measured[name] = measure(model, data, chosen.images)
    claims = [claim(name, found) for name, found in measured.items() if found["share_back"] is not None]
    result = {
        "schema": 1,
        "benchmark": "depthwise",
        "claims": claims,
        "networks": measured,
        "images": chosen.images,
        "date": machine.today(),
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for one in claims:
        print(f"{'holds ' if one['holds'] else 'FAILS '} {one['name']}: {one['ours']}")
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, found: dict[str, Any]) -> dict[str, Any]:
    text = "equalization and bias correction bring back >= 80 % of the points that one scale per tensor loses"
    share = found["share_back"]["both"]
    return {"name": name, "claim": text, "ours": share, "holds": bool(share >= 0.8)}


if __name__ == "__main__":
    sys.exit(main())
