"""Peak activation memory: the liveness figure against what an eager run of the same network allocates.

    python benchmarks/peak_memory.py            writes benchmarks/results/peak-memory.json

Ours: `record_torch` on tensors without values, then `liveness` with results that nobody reads counted, norms not
folded, in place where the model works in place. Theirs: the graph of torch.export (training form, which keeps
in-place operators), run by torch.fx.Interpreter that drops each value after its last use; weights are placed
before, each input is copied at its start. Two instruments, neither of them ours, look at that run:

    storages    each storage an operator returns, from then until its finalizer runs: the activations
    allocator   every allocation the profiler of torch sees: also the buffers inside kernels

Below storages we may only be where a value lives longer than its last use: the interpreter keeps values that no
node reads (the mask arithmetic of the transformers), and a composite operator of the graph (lstm) holds its
arguments until it returns. The allocator sees more where kernels take buffers of their own: convolutions copy
weights and activations into oneDNN's layout. Weights are random; only shapes matter.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gossamer.measure import machine
from gossamer.measure.arena import place
from gossamer.measure.dispatch import record_torch
from gossamer.measure.memory import liveness
from gossamer.measure.order import best_order

RESULT = Path(__file__).parent / "results" / "peak-memory.json"
ZOO = {  # network -> module of pytorchcv.models
    "resnet18": "resnet",
    "mobilenetv2_w1": "mobilenetv2",
    "densenet121": "densenet",
    "squeezenet_v1_1": "squeezenet",
    "efficientnet_b0": "efficientnet",
    "shufflenetv2_w1": "shufflenetv2",
    "nasnet_4a1056": "nasnet",
}
NODE = "node: "


def vit() -> tuple[nn.Module, Tensor]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig()), torch.randn(1, 3, 224, 224)


def bert() -> tuple[nn.Module, Tensor]:
    from transformers import BertConfig, BertModel

    config = BertConfig()
    return BertModel(config), torch.randint(0, config.vocab_size, (1, 128))


def zoo(name: str) -> tuple[nn.Module, Tensor]:
    home = importlib.import_module(f"pytorchcv.models.{ZOO[name]}")
    return getattr(home, name)(), torch.randn(1, 3, 224, 224)


def perceptron() -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(nn.Flatten(), *layers), torch.randn(1, 1, 28, 28)


def lstm() -> tuple[nn.Module, Tensor]:
    return nn.LSTM(64, 128, 2, batch_first=True), torch.randn(1, 20, 64)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    **{name: (lambda name=name: zoo(name)) for name in ZOO},
    "vit_b_16": vit,
    "bert_base_128_tokens": bert,
    "lenet300": perceptron,
}
OUTSIDE = {
    "lstm_2_layers": lstm
}  # reported, not claimed: aten.lstm holds its input while the second layer runs


class Eager(torch.fx.Interpreter):
    """Runs each node under its name; inputs are copies, so that they are allocated and freed like all else."""

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().placeholder(target, args, kwargs)
        return value.clone() if isinstance(value, Tensor) else value

    def run_node(self, n: torch.fx.Node) -> Any:
        with record_function(NODE + n.name):
            return super().run_node(n)


class Storages(TorchDispatchMode):
    """The largest sum of bytes of storages that operators returned and that were alive together."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()
        self.known = {value.untyped_storage()._cdata for value in held}
        self.alive = self.peak = 0
        self.at = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in pytree.tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in self.known:
                storage = value.untyped_storage()
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        if self.alive > self.peak:
            self.peak, self.at = self.alive, str(func)
        return result

    def _free(self, address: int, bytes_: int) -> None:
        self.known.remove(address)
        self.alive -= bytes_


def storages(graph: torch.fx.GraphModule, example: Tensor) -> tuple[int, str]:
    """Peak bytes of activations, and the operator that reached them."""
    constants = [value for value in vars(graph).values() if isinstance(value, Tensor)]
    mode = Storages([*graph.parameters(), *graph.buffers(), *constants])
    with torch.no_grad(), mode:
        Eager(graph, garbage_collect_values=True).run(example)
    return mode.peak, mode.at


def allocator(graph: torch.fx.GraphModule, example: Tensor) -> tuple[int, str]:
    """Peak bytes above those held before the run, and the node of the graph that reached them."""
    interpreter = Eager(graph, garbage_collect_values=True)
    seen = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
    with torch.no_grad(), seen:
        interpreter.run(example)
    assert seen.profiler is not None
    alive, peak, node, at = 0, 0, "", ""
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name().startswith(NODE):
            node = event.name().removeprefix(NODE)
        if event.name() == "[memory]":
            alive += event.nbytes()
            if alive > peak:
                peak, at = alive, node
    return peak, at


def row(name: str, build: Callable[[], tuple[nn.Module, Tensor]]) -> dict[str, Any]:
    torch.manual_seed(0)
    model, example = build()
    schedule = record_torch(model.eval(), example).schedule
    memory = liveness(schedule, unread=True)
    order, arena = best_order(schedule, unread=True), place(schedule, unread=True)
    graph = torch.export.export(model, (example,), strict=False).module()
    seen, by = storages(graph, example)
    taken, node = allocator(graph, example)
    peak = schedule.operations[memory.at]
    return {
        "network": name,
        "input": list(example.shape),
        "operations": len(schedule.operations),
        "liveness_bytes": memory.peak_bytes,
        "at": f"{peak.op} of {peak.layer}",
        "storages_bytes": seen,
        "storages_at": by,
        "ratio": round(memory.peak_bytes / seen, 5),
        "allocator_bytes": taken,
        "allocator_at": node,
        "best_order_bytes": order.memory.peak_bytes,
        "best_order_proved": order.optimal,
        "arena_ratio": round(arena.ratio, 4),
    }


def claim(name: str, text: str, ours: Any, holds: bool) -> dict[str, Any]:
    return {"name": name, "claim": text, "ours": ours, "holds": holds}


def main() -> int:
    warnings.filterwarnings("ignore", message="The tensor attributes self._flat_weights")
    rows = [row(name, build) for name, build in NETWORKS.items()]
    ratios = [one["liveness_bytes"] / one["storages_bytes"] for one in rows]
    below = sum(one["liveness_bytes"] <= one["allocator_bytes"] for one in rows)
    chain = next(one for one in rows if one["network"] == "lenet300")
    claims = [
        claim(
            "activations",
            f"0.95 <= liveness / bytes of storages alive <= 1 on {len(rows)} networks",
            f"{min(ratios):.5f} to {max(ratios):.5f}, equal on {ratios.count(1.0)}",
            min(ratios) >= 0.95 and max(ratios) <= 1,
        ),
        claim(
            "lower bound",
            "liveness <= what the allocator hands out, buffers of kernels included",
            f"{below} of {len(rows)}",
            below == len(rows),
        ),
        claim(
            "chain",
            "liveness == what the allocator hands out for a chain of linear layers",
            f"{chain['liveness_bytes']} and {chain['allocator_bytes']} bytes",
            chain["liveness_bytes"] == chain["allocator_bytes"],
        ),
    ]
    result = {
        "schema": 1,
        "benchmark": "peak-memory",
        "claims": claims,
        "networks": rows,
        "outside_the_claims": [row(name, build) for name, build in OUTSIDE.items()],
        "machine": machine.describe(),
        "date": machine.today(),
        "versions": machine.versions(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for one in claims:
        print(f"{'holds ' if one['holds'] else 'FAILS '} {one['name']}: {one['ours']}  ({one['claim']})")
    return 0 if all(one["holds"] for one in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
