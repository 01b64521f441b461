"""Packed networks of ternary weights on our operators: what is replaced, folded and chosen, and that outputs stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, native, runtime
from gossamer.artifact import Artifact, Floats, Ints, Stored, Tensor
from gossamer.export import pack
from gossamer.methods import TTQ, TWN, XNOR, BinaryConnect
from gossamer.runtime import Port, breakeven, build, conv_trial, graph, lower, lower_binary, lower_ternary
from gossamer.runtime.windows import Windows

LAYERS = ("stem", "grouped", "hidden", "out")


class Net(nn.Module):
    """Convolutions with and without a norm, a stride, groups, and linear layers on images and rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.grouped = nn.Conv2d(24, 32, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=2)
        self.hidden = nn.Linear(32, 50)
        self.out = nn.Linear(50, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.grouped(torch.relu(self.norm(self.stem(x)))))
        return self.out(torch.relu(self.hidden(x.mean(dim=(2, 3)))))


KINDS = {
    "TWN": TWN(),
    "TWN by channel": TWN(granularity="channel"),
    "TTQ": TTQ(),
    "BinaryConnect": BinaryConnect(),
    "XNOR": XNOR(),
}


@pytest.fixture(scope="module", params=KINDS)
def packed(request, tmp_path_factory) -> bytes:
    kind = KINDS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net().eval()
        for values in (model.norm.running_mean, model.norm.running_var, model.norm.weight, model.norm.bias):
            values.data.uniform_(0.5, 2)
    for name in LAYERS:
        formats.attach(getattr(model, name), "weight", kind)
    path = tmp_path_factory.mktemp("ternary") / "net.goss"
    pack(model, path, torch.zeros(2, 3, 12, 11))
    return path.read_bytes()


def images(batch):
    return np.random.default_rng(0).standard_normal((batch, 3, 12, 11)).astype(np.float32)


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("batch", [1, 5])
def test_a_packed_network_gives_what_its_dense_form_gives(packed, variant, batch):
    x = images(batch)

    got, wanted = (runtime.open(packed, kernels=kernels)(x) for kernels in ("ternary", "dense"))

    assert relative(got, wanted) < 1e-5


def test_explain_names_the_operators(packed):
    rows = runtime.open(packed, kernels="ternary").explain()

    assert [row.kernel for row in rows] == ["TernaryConv", "TernaryConv", "TernaryGemm", "TernaryGemm"]
    assert {row.why for row in rows} == {"asked for"}


def test_norms_and_biases_are_folded_into_the_operators(packed):
    with artifact.Reader(packed) as reader:
        before = [node.op for node in graph.nodes(graph.split(reader.graph)[1])]
        plan = lower.plan(reader, kernels="ternary")
    after = [node.op for node in graph.nodes(graph.split(plan.model)[1])]

    assert {"Mul", "Add"} <= set(before)
    assert not {"Conv", "Gemm", "MatMul", "Mul", "Add"} & set(after)
    assert not any(stub.dtype == "float32" and len(stub.shape) > 1 for stub in plan.initializers)


def test_small_layers_stay_dense_and_nothing_is_measured(packed, monkeypatch):
    monkeypatch.setattr(breakeven, "curve", lambda *_, **__: pytest.fail("it was measured"))

    rows = runtime.open(packed).explain()

    assert {row.kernel for row in rows} == {"onnxruntime dense"}


@pytest.mark.parametrize(("ours", "kernel"), [(0.5, "Ternary"), (0.9, "onnxruntime dense")])
def test_the_faster_kernel_runs(packed, monkeypatch, ours, kernel):
    monkeypatch.setattr(
        breakeven,
        "curve",
        lambda name, threads, measure, **_: SimpleNamespace(
            ms=lambda size, samples: ours if name.startswith("ternary") else 1.0
        ),
    )
    monkeypatch.setattr(lower_ternary, "LEAST_WEIGHTS", 1)

    rows = runtime.open(packed).explain()

    assert all(row.kernel.startswith(kernel) for row in rows)
    for row in rows:
        assert row.ms is not None
        assert row.other_ms is not None
        assert (row.ms < row.other_ms) == (kernel == "Ternary")


def test_a_convolution_is_measured_once_by_its_shape(monkeypatch, tmp_path):
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path))
    monkeypatch.setattr(breakeven, "SECONDS", 0.001)
    network = SimpleNamespace(shapes={"x": (None, 6, 9, 7)}, batch=2, threads=1)
    given = network, "x", (8, 3, 3, 3), Windows(pads=(1, 1, 1, 1), group=2)

    first = conv_trial.times("ternary", lower_ternary._convolution, *given)
    breakeven.curve.cache_clear()
    again = conv_trial.times("ternary", lambda conv: pytest.fail("measured twice"), *given)

    assert first == again
    assert len(list(tmp_path.iterdir())) == 2
    assert min(first[2]) > 0


@pytest.mark.parametrize(
    ("sizes", "tried", "share"),
    [
        ((), (17, 14), 14 / 17),  # no smaller than the kernel
        ((None, 30), (17, 30), 14 / 17),
        ((28, 14), (28, 14), 1),
        ((512, 1024), (256, 256), 8),
    ],
)
def test_large_images_are_tried_in_part(monkeypatch, sizes, tried, share):
    convs = []
    monkeypatch.setattr(
        breakeven,
        "curve",
        lambda name, threads, trial: convs.append(trial.conv) or SimpleNamespace(ms=lambda *_: 1.0),
    )
    network = SimpleNamespace(shapes={"x": (1, 3, *sizes)} if sizes else {}, batch=None, threads=1)

    found = conv_trial.times("ternary", lower_ternary._convolution, network, "x", (8, 3, 17, 3), Windows())

    assert {(conv.height, conv.width) for conv in convs} == {tried}
    assert found[1] == pytest.approx((share, share))


def test_products_are_measured_at_several_sizes(monkeypatch):
    monkeypatch.setattr(breakeven, "SIDES", (32, 64))
    monkeypatch.setattr(breakeven, "SECONDS", 0.001)

    rows = lower_ternary._products(1, traffic=2**20)

    assert [size for size, _ in rows] == [16 * (16 + 48), 32 * (32 + 48), 64 * (64 + 48)]
    assert all(set(times) == set(breakeven.SAMPLES) for _, times in rows)


def file_of(op, perm, attributes, *, weights=("w",), codes_of=3, scales=1, outputs=48, inputs=64):
    """A file of products of one ternary weight; `codes_of` values are among its codes."""
    outputs_last = op == "MatMul" or not attributes.get("transB")
    in_graph = (inputs, outputs) if outputs_last else (outputs, inputs)
    shape = in_graph if perm is None else in_graph[::-1]
    rng = np.random.default_rng(0)
    fields = {
        "codes": Ints(rng.integers(0, codes_of, shape).astype(np.uint8).reshape(-1), 2),
        "scale": Floats(rng.uniform(0.5, 2, scales).astype(np.float32)),
    }
    stored = Stored("uniform", shape, fields, options={"offset": 1})
    nodes = [build.node(op, ["x", name], [f"y{k}"], integers=attributes) for k, name in enumerate(weights)]
    nodes += [build.node("Add", ["y0", "y1"], ["y"])] if len(nodes) > 1 else []
    last = "y" if len(nodes) > 1 else "y0"
    rows = outputs if attributes.get("transA") else "batch"
    first = (inputs, outputs) if attributes.get("transA") else ("batch", inputs)
    model = build.model(nodes, [Port("x", first, "float32")], [Port(last, (rows, outputs), "float32")], {})
    return artifact.to_bytes(
        Artifact(model, tuple(Tensor(n, n, stored, perm) for n in dict.fromkeys(weights)))
    )


PLACES = [
    ("MatMul", None, {}),
    ("MatMul", (1, 0), {}),
    ("Gemm", None, {"transB": 1}),
    ("Gemm", (1, 0), {"transB": 1}),
    ("Gemm", None, {}),
]


@pytest.mark.parametrize(("op", "perm", "attributes"), PLACES)
def test_products_are_replaced_in_every_orientation(op, perm, attributes):
    data = file_of(op, perm, attributes)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)

    opened = runtime.open(data, kernels="ternary")

    assert opened.explain()[0].kernel == "TernaryGemm"
    assert relative(opened(x), runtime.open(data, kernels="dense")(x)) < 1e-5


@pytest.mark.parametrize(
    "data",
    [
        file_of("MatMul", None, {}, weights=("w", "w")),  # read twice
        file_of("Gemm", None, {"transB": 1}, codes_of=4),  # four values
        file_of("MatMul", None, {}, scales=64),  # a scale per input
        file_of("Gemm", None, {"transA": 1}, inputs=48),
    ],
    ids=["shared", "four values", "scaled inputs", "turned input"],
)
def test_other_products_stay_dense(data):
    rows = runtime.open(data, kernels="ternary").explain()

    assert {row.kernel for row in rows} == {"onnxruntime dense"}


def test_a_layer_of_signs_keeps_the_kernel_of_the_first_format_that_takes_it(monkeypatch):
    data = binary_file()
    for module in (lower_binary, lower_ternary):
        monkeypatch.setattr(module, "LEAST_WEIGHTS", 1)
    fast, slow = (SimpleNamespace(ms=lambda *_, ms=ms: ms) for ms in (0.5, 1.0))
    monkeypatch.setattr(breakeven, "curve", lambda name, *_, **__: slow if name.startswith("dense") else fast)
    x = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)

    opened = runtime.open(data)

    assert [row.kernel for row in opened.explain()] == ["TernaryGemm", "BinaryConv"]
    assert relative(opened(x), runtime.open(data, kernels="dense")(x)) < 1e-5


def binary_file():
    """Floats times signs, the sign of that, and signs times signs."""
    rng = np.random.default_rng(0)

    def stored(name):
        fields = {
            "signs": Ints(rng.integers(0, 2, 64 * 64).astype(np.uint8), 1),
            "scale": Floats(np.linspace(0.5, 1, 64, dtype=np.float32)),
        }
        return Tensor(name, name, Stored("binary", (64, 64), fields))

    nodes = [
        build.node("Gemm", ["x", "v"], ["a"], integers={"transB": 1}),
        build.node("GreaterOrEqual", ["a", "zero"], ["up"]),
        build.node("Where", ["up", "plus", "minus"], ["s"]),
        build.node("Gemm", ["s", "w"], ["y"], integers={"transB": 1}),
    ]
    given = {name: np.array(value, np.float32) for name, value in (("zero", 0), ("plus", 1), ("minus", -1))}
    ports = [Port("x", ("batch", 64), "float32")], [Port("y", ("batch", 64), "float32")]
    return artifact.to_bytes(Artifact(build.model(nodes, *ports, given), (stored("v"), stored("w"))))


def test_another_process_runs_it_without_torch(packed, tmp_path):
    path = tmp_path / "m.goss"
    path.write_bytes(packed)
    code = (
        "import json, sys, numpy as np, gossamer as gs\n"
        "y = gs.open(sys.argv[1], kernels='ternary')(np.ones((1, 3, 12, 11), np.float32))\n"
        "print(json.dumps([y[0].tolist(), 'torch' in sys.modules]))"
    )
    results = []
    for isa in native.VARIANTS:
        environment = os.environ | {"GOSSAMER_ISA": isa}
        command = [sys.executable, "-c", code, str(path)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        result, with_torch = json.loads(ran.stdout)
        assert not with_torch
        results.append(np.array(result))

    for result in results[1:]:
        assert relative(results[0], result) < 1e-5
