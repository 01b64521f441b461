"""Our channel criteria beside torch-pruning's: ResNet-20, CIFAR-10, half of the multiply-adds, the same training after it.

    PYTHONPATH=PEERS python benchmarks/peer_channels.py [--epochs 8] [--seeds 0 1] [--mixed-precision bf16]
                                          PEERS: pip install --no-deps --target PEERS torch-pruning==1.6.1

A candidate is one criterion, in one ranking of all channels or with the same ratio in every layer, on all channels or only on
those inside blocks (the ones that shortcuts carry stay). Both sides cut the same pretrained network by the least that leaves
at most half of the multiply-adds, as `gossamer.measure.profile` counts them, keep at least a tenth of every layer, and look
at the same training pictures. torch-pruning's ratio is found by bisection, its gradients are taken on those pictures (for its
Hessian: squared per picture and averaged; its own `accumulate_grad` of 1.6.1 keeps the last picture only).

    cut     validation accuracy without training                     every candidate
    short   validation accuracy after `steps` steps of training      the FINALISTS best of each side
    long    test accuracy after `epochs` epochs, each seed           the best of each side after the short training

Training is the same for all: SGD from lr 0.02 down a cosine, flips and crops, soft targets of the uncut network. Validation
pictures are training pictures of the pretrained network: good for choosing, no estimate of the test accuracy.
Claim: after the long training our best is at least torch-pruning's best less 0.2 points. torch-pruning's sparse training and
iterated cuts are not part of it, nor are ours.
Every figure is written as soon as it is known, and a run that was interrupted goes on where it stopped.
Result: benchmarks/results/torch-pruning.json; checkpoints in runs/peer-channels.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as peer
from torch import Tensor, nn
from torch.nn import functional as F

import gossamer as gs
from gossamer.data import Data
from gossamer.distillation import SoftTargets
from gossamer.measure import machine, profile
from gossamer.steps.base import Context
from gossamer.training import Checkpoint, evaluate, fit

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "torch-pruning.json"
WORK = ROOT / "runs" / "peer-channels"
HALF, LEAST_WIDTH, MARGIN, FINALISTS, BISECTIONS = 0.5, 0.1, 0.2, 4, 14
TRAINING: dict[str, Any] = {
    "lr": 0.02, "optimizer": "sgd", "weight_decay": 1e-4, "batch_size": 128, "schedule": "cosine", "augment": "flip-crop",
}  # fmt: skip
SCORES = ("group-l2", "l1", "l2", "outgoing", "product", "mean-activation", "variance", "taylor",
          "taylor-activation", "scale", "random")  # fmt: skip
COMPENSATED = ("group-l2", "variance", "taylor")  # once more, with means into the next biases
METHODS = (
    "thinet",
    "lasso",
    "discrimination-aware",
)  # the same ratio in every layer, and the next layer fitted
PEERS: dict[str, Callable[[], Any]] = {
    "magnitude-l1": lambda: peer.importance.GroupMagnitudeImportance(p=1),
    "magnitude-l2": lambda: peer.importance.GroupMagnitudeImportance(p=2),
    "bn-scale": peer.importance.BNScaleImportance,
    "lamp": peer.importance.LAMPImportance,
    "fpgm": lambda: peer.pruner.importance.FPGMImportance(),
    "taylor": peer.importance.GroupTaylorImportance,
    "hessian": peer.importance.GroupHessianImportance,
    "random": peer.importance.RandomImportance,
}


@dataclass(frozen=True)
class Candidate:
    """A way to cut the network; scope: "global" or "layer"; inner: only channels inside blocks."""

    side: str
    criterion: str
    scope: str
    inner: bool
    compensate: bool = False

    @property
    def name(self) -> str:
        extra = " compensated" if self.compensate else ""
        return f"{self.side}: {self.criterion}{extra}, {self.scope}, {'inner' if self.inner else 'all'}"


def candidates() -> list[Candidate]:
    """Ours, then torch-pruning's."""
    found = []
    for inner in (False, True):
        for scope in ("global", "layer"):
            found += [Candidate("ours", name, scope, inner) for name in SCORES]
            found += [Candidate("ours", name, scope, inner, compensate=True) for name in COMPENSATED]
            found += [Candidate("torch-pruning", name, scope, inner) for name in PEERS]
        found += [Candidate("ours", name, "layer", inner) for name in METHODS]
    return sorted(found, key=lambda candidate: candidate.side)


class Bench:
    """The network, the data, and what is known so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.data: Data = gs.load_data("cifar10")
        self.model = gs.load_model("resnet20", "resnet20_cifar10").eval()
        self.example = torch.from_numpy(self.data.batch(2))
        self.limit = HALF * profile(self.model, self.example).macs
        rows = np.random.default_rng(0).choice(len(self.data.train), options.samples, replace=False)
        raw, labels = self.data.train.take(np.sort(rows))
        self.inputs, self.labels = (
            torch.from_numpy(self.data.preprocess(raw)),
            torch.from_numpy(labels).long(),
        )
        self.gradients: dict[str, dict[str, Tensor]] = {}
        self.training = {**TRAINING, "mixed_precision": options.mixed_precision}
        settings = {name: getattr(options, name) for name in ("samples", "steps", "pictures")} | self.training
        self.result: dict[str, Any] = {"schema": 1, "benchmark": "torch-pruning", "settings": settings,
                                       "cut": {}, "short": {}, "long": {}}  # fmt: skip
        if options.result.exists():
            earlier = json.loads(options.result.read_text(encoding="utf-8"))
            if earlier["settings"] != settings:
                raise SystemExit(
                    f"{options.result}: made with {earlier['settings']}, asked for {settings}. Give another --result."
                )
            self.result = earlier

    def known(self, part: str, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures of that name, made now if they are not there yet."""
        if name not in self.result[part]:
            began = time.process_time()
            made = {**make(), "processor_seconds": round(time.process_time() - began, 1)}
            print(part, name, made, flush=True)
            self.result[part][name] = made
            self.write()
        found: dict[str, Any] = self.result[part][name]
        return found

    def write(self) -> None:
        self.result |= {
            "date": machine.today(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }
        self.options.result.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def percent(self, model: nn.Module, split: str = "validation") -> float:
        chosen = getattr(self.data, split)
        if split == "validation" and self.options.pictures < len(chosen):
            chosen = chosen.subset(range(self.options.pictures))
        return round(100 * evaluate(model, chosen, self.data.preprocess).accuracy, 2)

    def cut(self, candidate: Candidate) -> nn.Module:
        """The pretrained network, cut; the same every time."""
        torch.manual_seed(0)
        return (self._ours if candidate.side == "ours" else self._theirs)(candidate)

    def trained(self, candidate: Candidate, *, epochs: int, seed: int, **options: Any) -> nn.Module:
        """The network, cut and trained; `options` go to the trainer."""
        model = self.cut(candidate)
        fit(model, self.data, epochs=epochs, seed=seed, loss=SoftTargets(self.model, temperature=4.0, weight=0.9),
            progress=False, **self.training, **options)  # fmt: skip
        return model

    def _ours(self, candidate: Candidate) -> nn.Module:
        step = gs.PruneChannels(
            macs=HALF, criterion=candidate.criterion, scope=candidate.scope, compensate=candidate.compensate,
            skip=("conv1",) if candidate.inner else (), samples=self.options.samples, min_width=LEAST_WIDTH,
        )  # fmt: skip
        return step.apply(
            copy.deepcopy(self.model), Context(data=self.data, example=self.example, seed=0)
        ).eval()

    def _theirs(self, candidate: Candidate) -> nn.Module:
        """By bisection on the ratio: the mildest cut within the limit."""
        low, high, best = 0.0, 1.0 - LEAST_WIDTH, None
        for _ in range(BISECTIONS):
            ratio = (low + high) / 2
            model = self._with_gradients(candidate.criterion)
            kept: list[nn.Module] = [model.linear]
            if candidate.inner:
                carried = [m for name, m in model.named_modules() if name.endswith(".conv2")]
                kept += [model.conv1, *carried]
            torch.manual_seed(0)  # its random scores
            pruner = peer.pruner.BasePruner(
                model, self.example, importance=PEERS[candidate.criterion](), pruning_ratio=ratio,
                max_pruning_ratio=1.0 - LEAST_WIDTH, global_pruning=candidate.scope == "global", ignored_layers=kept,
            )  # fmt: skip
            pruner.step()
            model.zero_grad(set_to_none=True)
            if profile(model, self.example).macs <= self.limit:
                high, best = ratio, model
            else:
                low = ratio
        if best is None:
            raise RuntimeError(f"no ratio up to {high} leaves at most {HALF} of the multiply-adds")
        return best.eval()

    def _with_gradients(self, criterion: str) -> nn.Module:
        """A copy of the network that carries what the importance reads from `.grad`."""
        model = copy.deepcopy(self.model)
        if criterion in ("taylor", "hessian"):
            if criterion not in self.gradients:
                self.gradients[criterion] = self._gradient(squared=criterion == "hessian")
            for name, parameter in model.named_parameters():
                parameter.grad = self.gradients[criterion][name].clone()
        return model

    def _gradient(self, *, squared: bool) -> dict[str, Tensor]:
        """The gradient of the mean loss, or the mean over pictures of its square."""
        size = 1 if squared else 64
        total = {name: torch.zeros_like(p) for name, p in self.model.named_parameters()}
        for inputs, labels in zip(self.inputs.split(size), self.labels.split(size), strict=True):
            loss = F.cross_entropy(self.model(inputs), labels, reduction="sum")
            found = torch.autograd.grad(loss, list(self.model.parameters()))
            for name, gradient in zip(total, found, strict=True):
                total[name] += (gradient.square() if squared else gradient) / len(self.inputs)
        return total


def first_row(bench: Bench, candidate: Candidate) -> dict[str, Any]:
    """What a cut leaves; a candidate that fails says why."""
    try:
        model = bench.cut(candidate)
        share = profile(model, bench.example).macs / (bench.limit / HALF)
        return {"macs_share": round(share, 4), "validation": bench.percent(model)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def best(rows: dict[str, dict[str, Any]], side: str, count: int) -> list[str]:
    """The names of the candidates of a side with the best validation accuracy."""
    mine = {
        n: row["validation"] for n, row in rows.items() if n.startswith(f"{side}:") and "validation" in row
    }
    return sorted(mine, key=lambda name: -mine[name])[:count]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=100, help="of the short training")
    parser.add_argument("--samples", type=int, default=512, help="training pictures that criteria look at")
    parser.add_argument("--pictures", type=int, default=5000, help="validation pictures to choose by")
    parser.add_argument("--mixed-precision", default="no", help="no, or bf16")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="candidates whose criterion is one of these"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bench = Bench(options)
    everyone = {c.name: c for c in candidates() if not options.only or c.criterion in options.only}
    for name, candidate in everyone.items():
        bench.known("cut", name, lambda c=candidate: first_row(bench, c))
    rows = {name: bench.result["cut"][name] for name in everyone}

    sides = ("ours", "torch-pruning")
    for name in [name for side in sides for name in best(rows, side, FINALISTS)]:
        bench.known("short", name, lambda c=everyone[name]: {"validation": bench.percent(
            bench.trained(c, epochs=1, seed=0, max_batches=options.steps))})  # fmt: skip
    winners = {side: best(bench.result["short"], side, 1)[0] for side in sides}
    for seed in options.seeds:
        for winner in winners.values():
            label = f"{winner}, {options.epochs} epochs, seed {seed}"
            bench.known("long", label, lambda c=everyone[winner], s=seed, at=label: long_row(bench, c, s, at))

    mean = {
        side: float(np.mean([bench.result["long"][f"{winner}, {options.epochs} epochs, seed {seed}"]["test"]
                             for seed in options.seeds]))
        for side, winner in winners.items()
    }  # fmt: skip
    ahead = round(mean["ours"] - mean["torch-pruning"], 2)
    bench.result["claim"] = {
        "claim": f"at equal multiply-adds and training, ours >= torch-pruning's best - {MARGIN} points",
        "ours": winners["ours"], "theirs": winners["torch-pruning"], "epochs": options.epochs, "seeds": options.seeds,
        "test_uncut": bench.percent(bench.model, "test"), "test_ours": mean["ours"], "test_theirs": mean["torch-pruning"],
        "points_ahead": ahead, "holds": ahead >= -MARGIN,
    }  # fmt: skip
    bench.write()
    print(json.dumps(bench.result["claim"], indent=1))
    return 0 if bench.result["claim"]["holds"] else 1


def long_row(bench: Bench, candidate: Candidate, seed: int, label: str) -> dict[str, Any]:
    folder = WORK / "".join(c if c.isalnum() else "-" for c in f"{bench.options.result.stem} {label}")
    model = bench.trained(candidate, epochs=bench.options.epochs, seed=seed, checkpoint=Checkpoint(folder))
    return {"validation": bench.percent(model), "test": bench.percent(model, "test")}


if __name__ == "__main__":
    sys.exit(main())
