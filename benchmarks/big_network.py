"""A network of 60 million weights: memory and speed of pack and open, against zstd on the dense weights.

    python benchmarks/big_network.py            writes benchmarks/results/big-network.json

The network has the layers of AlexNet (60.97 M weights), pruned to 11 % and shared on 5-bit codebooks. Every
measurement is a fresh process; opening and zstd are measured in turn, and medians of CPU time are compared,
because other work may share the machine.

    open      gossamer.open(file): decode, and a session of ONNX Runtime
    zstd      zstd -d of the same dense float32 weights (compressed at level 3), read into arrays, and the
              same session with them
    decode    the two without the session
    memory    the peak resident size of the process, interpreter and libraries included; for pack also what it
              adds to the process that holds torch and the model
    pack      CPU seconds of gossamer.pack from the model to the reopened and compared file
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "big-network.json"
SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
DENSITY, BITS, ROUNDS = 0.11, 5, 5
MB = 1e6


def alexnet() -> Any:
    """The two-column AlexNet (groups of 2 in conv2, conv4, conv5), untrained."""
    from torch import nn

    def conv(name: str, groups: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
        out, inner, size, _ = SHAPES[name]
        return nn.Conv2d(inner * groups, out, size, stride=stride, padding=padding, groups=groups)

    pool = nn.MaxPool2d(3, 2)
    features = [conv("conv1", 1, 4), nn.ReLU(), pool, conv("conv2", 2, padding=2), nn.ReLU(), pool]
    features += [conv("conv3", 1, padding=1), nn.ReLU(), conv("conv4", 2, padding=1), nn.ReLU()]
    features += [conv("conv5", 2, padding=1), nn.ReLU(), pool, nn.Flatten()]
    dense = [nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*features, *dense)


def compressed() -> Any:
    """AlexNet whose weights are already in their format, attached one layer at a time."""
    import torch
    from torch import nn

    from gossamer import formats

    torch.manual_seed(0)
    model = alexnet()
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = module.weight
                sample = weight.abs().flatten()[:: max(1, weight.numel() // 1_000_000)]
                weight[weight.abs() < sample.quantile(1 - DENSITY)] = 0
                centroids = torch.linspace(float(weight.min()), float(weight.max()), 2**BITS)
                step = centroids[1] - centroids[0]
                kept = weight != 0
                weight[kept] = centroids[((weight[kept] - centroids[0]) / step).round().long()]
                formats.attach(module, "weight", formats.Sparse(values=formats.Codebook(bits=BITS)))
    return model


def prepare(folder: Path) -> dict[str, float]:
    """The packed file, the graph, and the dense weights under zstd; peak memory and CPU time of pack."""
    import gc

    import torch

    from gossamer.export import pack

    model, example = compressed(), torch.randn(1, 3, 227, 227)
    gc.collect()
    held = resident()
    reset_peak()
    begin = time.process_time()
    packed = pack(model, folder / "model.goss", example)
    return {
        "seconds": time.process_time() - begin,
        "peak": peak(),
        "before": held,
        "bytes": packed.size_bytes,
        "difference": packed.max_difference,
    }


def write_dense(folder: Path) -> dict[str, float]:
    """The dense float32 weights as one raw file, that file under zstd, and the graph."""
    import numpy as np
    import zstandard

    from gossamer import artifact
    from gossamer.runtime import graph, weights

    with artifact.Reader(folder / "model.goss") as reader:
        stubs = weights.initializers(reader)
        (folder / "graph.onnx").write_bytes(graph.with_stubs(reader.graph, stubs))
        (folder / "weights.json").write_text(json.dumps([(item.name, item.shape) for item in stubs]))
        with (folder / "weights.bin").open("wb") as out:
            for array in weights.arrays(reader):
                out.write(np.ascontiguousarray(array).data)
    with (folder / "weights.bin").open("rb") as source, (folder / "weights.bin.zst").open("wb") as out:
        zstandard.ZstdCompressor(level=3).copy_stream(source, out)
    return {
        "bytes": (folder / "weights.bin").stat().st_size,
        "zstd": (folder / "weights.bin.zst").stat().st_size,
    }


def open_ours(folder: Path) -> dict[str, float]:
    import numpy as np

    import gossamer

    begin, cpu = time.perf_counter(), time.process_time()
    session = gossamer.open(folder / "model.goss", threads=1)
    spent = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    session(np.zeros((1, 3, 227, 227), np.float32))
    return {**spent, "peak": peak(), "resident": resident()}


def open_zstd(folder: Path) -> dict[str, float]:
    """zstd -d of the dense weights, then the same graph in ONNX Runtime."""
    import numpy as np
    import onnxruntime as ort

    shapes = json.loads((folder / "weights.json").read_text())
    begin, cpu, before = time.perf_counter(), time.process_time(), os.times()
    target = folder / "out.bin"
    subprocess.run(["zstd", "-d", "-q", "-f", folder / "weights.bin.zst", "-o", target], check=True)
    after = os.times()
    child = after.children_user + after.children_system - before.children_user - before.children_system
    flat = np.fromfile(target, np.float32)
    arrays, at = [], 0
    for _, shape in shapes:
        size = int(np.prod(shape))
        arrays.append(flat[at : at + size].reshape(shape))
        at += size
    loaded = time.perf_counter() - begin
    loaded_cpu = time.process_time() - cpu + child
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_external_initializers(
        [name for name, _ in shapes], [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    )
    ort.InferenceSession((folder / "graph.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
    cpu_all = time.process_time() - cpu + child
    return {
        "loaded": loaded,
        "loaded_cpu": loaded_cpu,
        "seconds": time.perf_counter() - begin,
        "cpu": cpu_all,
        "peak": peak(),
    }


def decode_ours(folder: Path) -> dict[str, float]:
    """The file to dense arrays, without the session."""
    from gossamer import artifact
    from gossamer.runtime import weights

    begin, cpu = time.perf_counter(), time.process_time()
    with artifact.Reader(folder / "model.goss") as reader:
        arrays = list(weights.arrays(reader))
    return {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "arrays": len(arrays)}


def peak() -> float:
    """Peak resident bytes of this process."""
    for line in (
        Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else ()
    ):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def resident() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Forget the peak of building the model (Linux only; elsewhere the figure includes it)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def fresh(task: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--task", task, "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("GOSSAMER_SCRATCH")) as name:
        folder = Path(name)
        packs = [fresh("prepare", folder)]
        dense = fresh("write_dense", folder)
        rounds = [
            {task: fresh(task, folder) for task in ("open_ours", "open_zstd", "decode_ours")}
            for _ in range(ROUNDS)
        ]
        packs.append(fresh("prepare", folder))
    limit = 1.5 * dense["bytes"] + 300 * MB

    def middle(task: str, key: str) -> float:
        return statistics.median(one[task][key] for one in rounds)

    bound = f"<= {limit / MB:.0f}"
    added = statistics.median(one["peak"] - one["before"] for one in packs)
    pack_peak = statistics.median(one["peak"] for one in packs)
    pack_speed = dense["bytes"] / MB / statistics.median(one["seconds"] for one in packs)
    open_peak = middle("open_ours", "peak")
    ratio = statistics.median(one["open_ours"]["cpu"] / one["open_zstd"]["cpu"] for one in rounds)
    decode = statistics.median(one["decode_ours"]["cpu"] / one["open_zstd"]["loaded_cpu"] for one in rounds)
    claims = [
        claim("memory that pack adds to torch and the model, MB", bound, added / MB, added <= limit),
        claim("peak memory of the packing process, MB", bound, pack_peak / MB, pack_peak <= limit),
        claim("peak memory of the opening process, MB", bound, open_peak / MB, open_peak <= limit),
        claim("pack, MB of float weights per CPU second", ">= 20", pack_speed, pack_speed >= 20),
        claim("open / (zstd -d + load + session), CPU time", "<= 1", ratio, ratio <= 1),
        claim("decode to arrays / (zstd -d + load), CPU time", "<= 1", decode, decode <= 1),
    ]
    report = {
        "schema": 1,
        "benchmark": "big-network",
        "claims": claims,
        "dense_bytes": dense["bytes"],
        "zstd_bytes": dense["zstd"],
        "file_bytes": packs[0]["bytes"],
        "max_difference": packs[0]["difference"],
        "pack": packs,
        "rounds": rounds,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.date.today().isoformat(),
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "torch", "zstandard")},
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    for one in claims:
        print(f"{one['name']:48} {one['claim']:>8} {one['ours']:>10} {'holds' if one['holds'] else 'FAILS'}")


def claim(name: str, bound: str, ours: float, holds: bool) -> dict[str, Any]:
    return {"name": name, "claim": bound, "ours": round(ours, 3), "holds": bool(holds)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", help="one measurement, in this process")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.task is None:
        main()
    else:
        print(json.dumps(globals()[options.task](options.folder)))
