"""Train the dictionary of the .goss head, and measure it on a network that it has not seen.

    python benchmarks/dictionary.py [--graphs FOLDER] [--size BYTES] [--write]

Every network of `dictionary_networks` is packed once, for its graph (kept in FOLDER, so that a second run is
quick). Its heads are then drawn: the same graph with the outlines of several recipes, other counts,
preprocessing and labels. The dictionary is what zstd's COVER finds in all of them. LeNet-5 is held out; its
head is printed before and after. --write replaces src/gossamer/artifact/dictionary-1.bin: a new file format,
unless no file was ever published.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import onnx
import zstandard
from dictionary_networks import held_out, networks

import gossamer
from gossamer.artifact import Reader, head, header, metadata
from gossamer.artifact.outline import FieldOutline, Outline, TensorOutline
from gossamer.export import pack

DICTIONARY = Path(gossamer.__file__).parent / "artifact" / f"dictionary-{head.VERSION}.bin"
RESULT = Path(__file__).parent / "results" / "head-dictionary.json"
DRAWS = 8  # heads of each network
LARGEST = 6000  # bytes of a head: larger ones are cut, for a dictionary helps the first kilobytes
RECIPES = (
    "deep-compression",
    "deep-compression",
    "deep-compression",
    "prune",
    "share",
    "quantize",
    "quantize",
    "none",
)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
THINGS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PREPROCESS = (
    {"color": "L", "div": 255, "mean": 0.5, "std": 0.5},
    {"color": "L", "size": 28, "div": 255, "mean": 0.1307, "std": 0.3081},
    {"color": "L", "div": 255, "mean": 0.1307, "std": 0.3081},
    {"color": "L", "div": 255, "mean": 0.286, "std": 0.353},
    {"color": "RGB", "size": 32, "div": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    {"color": "RGB", "size": 224, "div": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    {"color": "RGB", "div": 255},
    {},
)


def graph_of(name: str, module: object, example: object, folder: Path) -> Path:
    """The network packed without compression, in `folder`."""
    path = folder / f"{name}.goss"
    if not path.exists():
        pack(module.eval(), path, example)  # type: ignore[attr-defined, arg-type]  # a torch module
    return path


def raw_heads(path: Path, rng: random.Random, draws: int) -> list[bytes]:
    """Heads before compression, as `draws` recipes would have left them."""
    with Reader(path, max_bytes=2**32) as reader:
        outlines, graph = [reader.outline(name) for name in reader.names], _without_floats(reader.graph)
    heads = []
    for _ in range(draws):
        recipe = rng.choice(RECIPES)
        tensors = [_outline(outline, recipe, rng) for outline in outlines]
        about = {"recipe": recipe} if recipe != "none" else {}
        if preprocess := rng.choice(PREPROCESS):
            about["preprocess"] = preprocess
        labels = rng.choice(
            [
                [str(i) for i in range(10)],
                [str(i) for i in range(10)],
                rng.choice([DIGITS, THINGS, rng.sample(THINGS, 4)]),
                [],
            ]
        )
        if labels:
            about["labels"] = labels
        heads.append(head.raw_head(header.encode(tensors), graph, metadata.encode(about)))
    return heads


def _without_floats(graph: bytes) -> bytes:
    """The graph without its float constants: a dictionary must not learn random weights."""
    model = onnx.ModelProto.FromString(graph)
    kept = [tensor.SerializeToString() for tensor in model.graph.initializer if tensor.data_type != 1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.TensorProto.FromString(raw) for raw in kept)
    return model.SerializeToString(deterministic=True)


def _outline(old: TensorOutline, recipe: str, rng: random.Random) -> TensorOutline:
    shape = old.node.shape
    node = old.node if len(shape) < 2 or recipe == "none" else _node(shape, old.node.numel, recipe, rng)
    return TensorOutline(old.name, old.initializer, node, old.perm, old.dtype)


def _node(shape: tuple[int, ...], numel: int, recipe: str, rng: random.Random) -> Outline:
    coder = rng.choice(["huffman", "rans", "rans", "adaptive", "bitpack"])

    def ints(name: str, count: int, width: int) -> FieldOutline:
        return FieldOutline(
            name, count, int(count * width * rng.uniform(0.5, 0.95) / 8) + 1, width=width, coder=coder
        )

    def floats(name: str, count: int) -> FieldOutline:
        return FieldOutline(name, count, 4 * count, dtype="float32")

    if recipe == "quantize":
        width = rng.choice([4, 8, 8])
        fields = {"codes": ints("codes", numel, width), "scale": floats("scale", rng.choice([1, shape[0]]))}
        return Outline("uniform", shape, fields, options={"offset": 2 ** (width - 1) - 1})
    entries = numel if recipe == "share" else int(numel * rng.uniform(0.02, 0.4)) + 1
    width = rng.choice([4, 5, 5, 6, 8])
    centroids = rng.choice([2**width, 2**width - 1, rng.randint(2, 2**width)])
    leaf = Outline(
        "codebook",
        (entries,),
        {"codes": ints("codes", entries, width), "centroids": floats("centroids", centroids)},
    )
    if recipe == "share":
        return Outline("codebook", shape, leaf.fields)
    if recipe == "prune":
        leaf = Outline("dense", (entries,), {"values": floats("values", entries)})
    side = {
        name: ints(name, count, 1)
        for name, count in (("rows", shape[0]), ("cols", numel // shape[0]))
        if rng.random() < 0.25
    }
    options = {"order": 1} if rng.random() < 0.25 else {}
    scan = (
        ints("bitmap", numel, 1)
        if rng.random() < 0.2
        else ints("gaps", entries + entries // 50, rng.choice([4, 5, 5, 6, 8]))
    )
    return Outline("sparse", shape, {**side, scan.name: scan}, {"values": leaf}, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=Path, default=Path("runs/dictionary"))
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    options.graphs.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    samples = []
    for name, module, example in networks():
        for raw in raw_heads(graph_of(name, module, example, options.graphs), rng, DRAWS):
            samples.append(raw[:LARGEST])
    trained = zstandard.train_dictionary(options.size, samples, level=head.LEVEL, dict_id=head.VERSION)
    unseen = raw_heads(graph_of(*held_out(), options.graphs), random.Random(1), 20)
    figures = {
        "samples": len(samples),
        "sample_bytes": sum(map(len, samples)),
        "dictionary_bytes": len(trained.as_bytes()),
        "lenet5_head_bytes": sum(map(len, unseen)) / len(unseen),
        "lenet5_frame_bytes": sum(len(head.compress(raw, b"")) for raw in unseen) / len(unseen),
        "lenet5_frame_bytes_with_dictionary": sum(
            len(head.compress(raw, trained.as_bytes())) for raw in unseen
        )
        / len(unseen),
    }
    ours, plain = figures["lenet5_frame_bytes_with_dictionary"], figures["lenet5_frame_bytes"]
    claim = {
        "name": "head of LeNet-5, held out",
        "claim": "the dictionary halves the compressed head",
        "ours": f"{ours:.1f} instead of {plain:.1f} bytes",
        "holds": ours <= plain / 2,
    }
    report = {"schema": 1, "benchmark": "head-dictionary", "claims": [claim], "figures": figures}
    print(json.dumps(report, indent=2))
    if options.write:
        DICTIONARY.write_bytes(trained.as_bytes())
        RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
