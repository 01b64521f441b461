"""Small artifacts with known arrays, shared by the tests of the file format."""

from __future__ import annotations

import numpy as np

from gossamer.artifact import Artifact, Floats, Ints, Stored, Tensor
from gossamer.artifact.positions import encode_positions

METADATA = {
    "inputs": [{"name": "a", "shape": ["N", 1, 8, 8], "dtype": "float32"}],
    "preprocess": {"color": "L", "div": 255, "mean": 0.1307, "std": 0.3081},
    "labels": ["zéro", "one"],
    "recipe": [{"Prune": {"sparsity": 0.9}}, {"Share": {"bits": 5}}],
}
GRAPH = b'\x08\x0a:\x1c\n\x0c\n\x01a\n\x02w0\x12\x01b"\x04Gemm\x12\x01g' * 3


def dense(values: np.ndarray, dtype: str = "float32") -> Stored:
    return Stored("dense", values.shape, {"values": Floats(values, dtype)})


def codebook(codes: np.ndarray, centroids: np.ndarray, width: int) -> Stored:
    return Stored("codebook", codes.shape, {"codes": Ints(codes, width), "centroids": Floats(centroids)})


def uniform(codes: np.ndarray, scale: np.ndarray, width: int, **options: int) -> Stored:
    return Stored(
        "uniform", codes.shape, {"codes": Ints(codes, width), "scale": Floats(scale)}, options=options
    )


def sparse(mask: np.ndarray, values: Stored) -> Stored:
    fields, options = encode_positions(mask)
    return Stored("sparse", mask.shape, fields, {"values": values}, options)


def integers(codes: np.ndarray, width: int, offset: int = 0, high: np.ndarray | None = None) -> Stored:
    fields = {"codes": Ints(codes, width)} | ({} if high is None else {"high": Ints(high, 16)})
    return Stored("integers", codes.shape, fields, options={"offset": offset})


def binary_sample() -> tuple[Artifact, dict[str, np.ndarray]]:
    """Signs with one scale, with a scale per row, and sums of three bases."""
    rng = np.random.default_rng(9)
    made, arrays = [], {}
    for name, shape, bases, scales in (
        ("one", (4, 5), 1, 1),
        ("rows", (6, 3, 3, 3), 1, 6),
        ("bases", (5, 7), 3, 3),
        ("bases.rows", (5, 7), 3, 15),
    ):
        signs = rng.integers(0, 2, (bases, *shape)).astype(np.uint8)
        scale = rng.normal(size=scales).astype(np.float32)
        fields = {"signs": Ints(signs, 1), "scale": Floats(scale)}
        stored = Stored("binary", shape, fields, options={"bases": bases} if bases > 1 else {})
        made.append(Tensor(name, name, stored))
        spread = scale.reshape(bases, -1, *([1] * (len(shape) - 1)))
        total = np.zeros(shape, np.float32)
        for m in range(bases):
            total = total + (1 - 2 * signs[m].astype(np.float32)) * spread[m]
        arrays[name] = total
    return Artifact(b"binary", tuple(made)), arrays


def integer_sample() -> tuple[Artifact, dict[str, np.ndarray]]:
    """An artifact whose initialisers are integers, and the arrays that they must hold."""
    rng = np.random.default_rng(8)
    grid = rng.integers(0, 255, (6, 3, 3, 3)).astype(np.uint8)
    mask = rng.random((9, 20)) < 0.2
    shared = rng.integers(0, 5, int(mask.sum())).astype(np.uint8)
    centroids = np.array([3, 90, 127, 200, 250], np.uint8)
    kept = np.zeros(mask.shape, np.int8)
    kept[mask] = (centroids.astype(int) - 127)[shared]
    table = Stored(
        "codebook", shared.shape, {"codes": Ints(shared, 3)}, {"centroids": integers(centroids, 8, 127)}
    )
    most = 2**31 - 1
    bias = np.array([-most, most, 0, 12345, -70000, 1])
    high, low = np.divmod(bias + most, 2**16)
    tensors = {
        "conv.weight": (integers(grid, 8, 127), None, "int8", (grid.astype(int) - 127).astype(np.int8)),
        "fc.weight": (sparse(mask, table), (1, 0), "int8", kept.T),
        "conv.bias": (
            integers(low.astype(np.uint16), 16, most, high.astype(np.uint16)),
            None,
            "int32",
            bias.astype(np.int32),
        ),
        "packed": (integers(grid, 8), None, "uint8", grid),
    }
    artifact = Artifact(
        GRAPH,
        tuple(
            Tensor(name, f"w{index}", stored, perm, dtype)
            for index, (name, (stored, perm, dtype, _)) in enumerate(tensors.items())
        ),
    )
    return artifact, {name: np.ascontiguousarray(array) for name, (_, _, _, array) in tensors.items()}


def sample() -> tuple[Artifact, dict[str, np.ndarray]]:
    """An artifact with every layout, and the arrays its initialisers must hold."""
    rng = np.random.default_rng(7)
    bias = rng.normal(size=6).astype(np.float32)
    mask = rng.random((40, 3, 5, 5)) < 0.1
    mask[[3, 4, 17]] = False
    codes = rng.integers(0, 20, int(mask.sum())).astype(np.uint8)
    centroids = rng.normal(size=20).astype(np.float32)
    conv = np.zeros(mask.shape, np.float32)
    conv[mask] = centroids[codes]
    grid = rng.integers(0, 15, (10, 40)).astype(np.uint8)
    scale = rng.random(10).astype(np.float32)
    wide = rng.integers(0, 1000, (7, 9)).astype(np.uint16)
    tensors = {
        "conv.weight": (sparse(mask, codebook(codes, centroids, 5)), None, "float32", conv),
        "conv.bias": (dense(bias), None, "float32", bias),
        "fc.weight": (
            uniform(grid, scale, 4, offset=7),
            (1, 0),
            "float32",
            ((grid.astype(np.float32) - 7) * scale[:, None]).T,
        ),
        "fc.bias": (
            dense(bias.astype(np.float16).astype(np.float32), "float16"),
            None,
            "float16",
            bias.astype(np.float16),
        ),
        "table": (
            codebook(wide, np.arange(1000, dtype=np.float32), 10),
            None,
            "float64",
            wide.astype(np.float64),
        ),
        "empty": (dense(np.zeros((0, 4), np.float32)), None, "float32", np.zeros((0, 4), np.float32)),
        "scalar": (dense(np.array(2.5, np.float32)), None, "float32", np.array(2.5, np.float32)),
    }
    artifact = Artifact(
        GRAPH,
        tuple(
            Tensor(name, f"w{index}" if index % 2 else name, stored, perm, dtype)
            for index, (name, (stored, perm, dtype, _)) in enumerate(tensors.items())
        ),
        METADATA,
    )
    return artifact, {name: array for name, (_, _, _, array) in tensors.items()}
