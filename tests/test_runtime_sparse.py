"""Sparse weights of few values on our own operator: packed networks, every variant, and damaged fields."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gossamer as gs
from gossamer import artifact, native, runtime
from gossamer.errors import OptionError
from gossamer.models.lenet import LeNet300
from gossamer.runtime import breakeven, build, graph, lower, lower_sparse, lowering, sparse
from operator_session import session


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> bytes:
    """LeNet-300-100 of random weights, pruned and shared to 16 values."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LeNet300()
    example = torch.zeros(2, 1, 28, 28)
    gs.apply(model, [gs.Prune(sparsity=0.9), gs.Share(bits=4)], example=example)
    path = tmp_path_factory.mktemp("sparse") / "lenet.goss"
    gs.pack(model, path, example)
    return path.read_bytes()


def random_fields(rows, columns, density=0.1, streams=1, transposed=False, seed=0):
    """A dense matrix [rows, columns] and its fields."""
    rng = np.random.default_rng(seed)
    shape = (columns, rows) if transposed else (rows, columns)
    positions = np.flatnonzero(rng.random(shape) < density)
    codes = rng.integers(0, 16, positions.size, np.uint8)
    codebook = rng.standard_normal(16).astype(np.float32)
    dense = np.zeros(shape, np.float32)
    dense.reshape(-1)[positions] = codebook[codes]
    fields = sparse.packed(positions, codes, codebook, shape, transposed=transposed, streams=streams)
    return (dense.T if transposed else dense), fields


def inputs(batch, columns, zeros=0.5, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, columns)).astype(np.float32)
    return x * (rng.random(x.shape) >= zeros).astype(np.float32)


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_a_packed_network_gives_what_its_dense_form_gives(packed, variant, batch):
    x = np.random.default_rng(0).standard_normal((batch, 1, 28, 28)).astype(np.float32)

    got, wanted = (runtime.open(packed, kernels=kernels)(x) for kernels in ("sparse", "dense"))

    assert relative(got, wanted) < 1e-5


def test_explain_names_the_operator_and_why(packed):
    rows = runtime.open(packed, kernels="sparse").explain()

    assert [row.kernel for row in rows] == ["SparseGemm"] * 3
    assert all(row.layout == "sparse(values=codebook)" and row.why == "asked for" for row in rows)


def test_small_layers_stay_dense_and_nothing_is_measured(packed, monkeypatch):
    monkeypatch.setattr(breakeven, "curve", lambda *_, **__: pytest.fail("it was measured"))

    rows = runtime.open(packed).explain()

    assert {row.kernel for row in rows} == {"onnxruntime dense"}


@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 16, 33])
@pytest.mark.parametrize("streams", [1, 2, 3])
def test_the_operator_computes_the_product(variant, zeros, batch, streams):
    dense, fields = random_fields(801, 130, streams=streams)
    x, bias = inputs(batch, 130, zeros), np.arange(801, dtype=np.float32)

    got = session(sparse.model(fields, bias), threads=2).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, x.astype(np.float64) @ dense.T + bias, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (16, 17), (257, 65)])
@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_of_any_shape_and_density(shape, density, transposed):
    dense, fields = random_fields(*shape, density=density, transposed=transposed)
    x = inputs(3, shape[1], zeros=0)

    got = session(sparse.model(fields)).run(None, {"x": x})[0]

    np.testing.assert_allclose(got, x.astype(np.float64) @ dense.T, rtol=1e-5, atol=1e-4)


def test_streams_own_about_equally_many_entries():
    mask = np.random.default_rng(0).random((1024, 200)) < np.linspace(0, 0.5, 1024)[:, None]
    positions = np.flatnonzero(mask)

    fields = sparse.packed(positions, np.zeros(positions.size), np.ones(1, np.float32), mask.shape, streams=4)

    sizes = fields.counts.astype(int).sum(axis=1)
    assert sizes.min() > 0.85 * sizes.max()
    assert fields.starts[1] > 400  # the first rows hold little


def test_nine_percent_takes_less_than_one_and_a_quarter_bytes_each():
    _, fields = random_fields(4096, 512, density=0.09)
    kept = np.count_nonzero(fields.bytes >> 4 != 15)

    assert (fields.bytes.nbytes + fields.counts.nbytes) / kept < 1.25


def damaged(fields, name):
    """The fields with one of them changed."""
    arrays = {key: getattr(fields, key).copy() for key in sparse.NAMES}
    if name == "bytes":
        arrays["bytes"][40:60] = 255
    elif name == "counts":
        arrays["counts"][0, 3] += 1
    elif name == "starts":
        arrays["starts"][-1] = 2**40
    elif name == "codebook":
        arrays["codebook"] = arrays["codebook"][:2]
    elif name == "empty":
        arrays["starts"] = arrays["starts"][:0]
    return dataclasses.replace(fields, **arrays)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bytes", "reaches row"),
        ("counts", "the columns hold"),
        ("starts", "must own 1 to 65535 rows"),
        ("codebook", "uses a code beyond the 2"),
        ("empty", "must begin with 0"),
    ],
)
def test_a_damaged_field_stops_the_session_with_a_message(name, said):
    _, fields = random_fields(200, 50, density=0.3)

    with pytest.raises(Exception, match=f"SparseGemm node 'product'.*{said}.*damaged"):
        session(sparse.model(damaged(fields, name)))


def test_an_input_of_another_size_is_an_error_and_the_session_lives():
    _, fields = random_fields(20, 30)
    short = dataclasses.replace(fields, columns=29)
    running = session(sparse.model(short))  # the graph says 29, the weights 30

    with pytest.raises(Exception, match="29 elements on its last axis, expected 30"):
        running.run(None, {"x": np.zeros((1, 29), np.float32)})
    with pytest.raises(Exception, match="29 elements"):
        running.run(None, {"x": np.zeros((5, 29), np.float32)})


def test_fields_that_are_no_initialisers_are_refused():
    node = build.node("SparseGemm", ["x", "a", "b", "c", "d"], ["y"], name="n", domain=build.DOMAIN)
    kinds = {"x": "float32", "a": "uint8", "b": "uint16", "c": "int64", "d": "float32"}
    ports = [runtime.Port(name, (4,), kind) for name, kind in kinds.items()]

    with pytest.raises(Exception, match="input 'bytes' changes from call to call, expected an initialiser"):
        session(build.model([node], ports, [runtime.Port("y", (4,), "float32")], {}))


def stored(fields_of, initializer, perm=None):
    """A tensor of the layout sparse(values=codebook) from (shape, positions, codes, codebook)."""
    shape, positions, codes, codebook = fields_of
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[positions] = True
    from gossamer.artifact.positions import encode_positions

    fields, options = encode_positions(mask)
    values = artifact.Stored(
        "codebook",
        (positions.size,),
        {"codes": artifact.Ints(codes, 4), "centroids": artifact.Floats(codebook)},
    )
    return artifact.Tensor(
        initializer, initializer, artifact.Stored("sparse", shape, fields, {"values": values}, options), perm
    )


def file_of(op, perm, attributes=None, *, weights=("w",), batch="batch", rows=48, columns=64):
    """A file of one product whose weight is sparse; `rows` outputs."""
    attributes = attributes or {}
    outputs_last = op == "MatMul" or not attributes.get("transB")
    in_graph = (columns, rows) if outputs_last else (rows, columns)
    shape = in_graph if perm is None else in_graph[::-1]
    rng = np.random.default_rng(0)
    positions = np.flatnonzero(rng.random(shape) < 0.1)
    parts = (
        shape,
        positions,
        rng.integers(0, 16, positions.size, np.uint8),
        rng.standard_normal(16).astype(np.float32),
    )
    nodes = [build.node(op, ["x", name], [f"y{k}"], integers=attributes) for k, name in enumerate(weights)]
    total = nodes if len(nodes) == 1 else [*nodes, build.node("Add", ["y0", "y1"], ["y"])]
    last = "y0" if len(nodes) == 1 else "y"
    model = build.model(
        total,
        [runtime.Port("x", (batch, columns), "float32")],
        [runtime.Port(last, (batch, rows), "float32")],
        {},
    )
    tensors = tuple(stored(parts, name, perm) for name in dict.fromkeys(weights))
    return artifact.to_bytes(artifact.Artifact(model, tensors))


@pytest.mark.parametrize(
    ("op", "perm", "attributes"),
    [
        ("MatMul", None, None),
        ("MatMul", (1, 0), None),
        ("Gemm", None, {"transB": 1}),
        ("Gemm", (1, 0), {"transB": 1}),
        ("Gemm", None, None),
    ],
)
def test_products_are_replaced_in_every_orientation(op, perm, attributes):
    data, x = file_of(op, perm, attributes), inputs(3, 64)
    opened = runtime.open(data, kernels="sparse")

    assert opened.explain()[0].kernel == "SparseGemm"
    assert relative(opened(x), runtime.open(data, kernels="dense")(x)) < 1e-5


@pytest.mark.parametrize("weights", [("w", "w"), ("w", "v")])
def test_a_weight_that_two_nodes_share_stays_dense(weights):
    data, x = file_of("MatMul", None, weights=weights), inputs(3, 64)
    opened = runtime.open(data, kernels="sparse")

    wanted = "onnxruntime dense" if weights[0] == weights[1] else "SparseGemm"
    assert {row.kernel for row in opened.explain()} == {wanted}
    assert relative(opened(x), runtime.open(data, kernels="dense")(x)) < 1e-5


def test_a_product_that_is_scaled_or_turned_stays_dense():
    data = file_of("Gemm", None, {"transA": 1}, batch=64)

    assert runtime.open(data, kernels="sparse").explain()[0].kernel == "onnxruntime dense"


def flat(ms):
    """A curve on which everything takes as long, by number of samples."""
    return breakeven.Curve(((1, ms), (2, ms)))


@pytest.mark.parametrize(
    ("slow_batch", "batch", "kernel"),
    [
        (None, "batch", "SparseGemm"),
        (64, "batch", "onnxruntime dense"),
        (4, "batch", "onnxruntime dense"),
        (1, "batch", "onnxruntime dense"),
        (64, 1, "SparseGemm"),
        (1, 1, "onnxruntime dense"),
    ],
)
def test_the_operator_runs_where_it_is_faster_for_every_batch(monkeypatch, slow_batch, batch, kernel):
    sparse_ms = {n: 1000.0 if n == slow_batch else 0.001 for n in breakeven.SAMPLES}
    monkeypatch.setattr(lower_sparse, "LEAST_WEIGHTS", 1)
    curves = {"dense": flat(dict.fromkeys(breakeven.SAMPLES, 1.0)), "sparse": flat(sparse_ms)}
    monkeypatch.setattr(breakeven, "curve", lambda name, threads, measure, traffic: curves[name])

    row = runtime.open(file_of("Gemm", None, {"transB": 1}, batch=batch)).explain()[0]

    assert row.kernel == kernel
    assert row.ms is not None
    assert row.other_ms is not None


@pytest.mark.parametrize(
    ("times", "batch", "kernel"),
    [
        ({1: 0.5, 64: 0.96}, None, "SparseGemm"),  # a gain for one, nothing lost for many
        ({1: 0.5, 64: 0.98}, None, "onnxruntime dense"),
        ({1: 0.5, 64: 0.98}, 1, "SparseGemm"),
        ({1: 0.9, 64: 0.9}, None, "onnxruntime dense"),  # too little to be sure of
    ],
)
def test_a_gain_somewhere_and_no_loss_anywhere_is_asked_for(monkeypatch, times, batch, kernel):
    monkeypatch.setattr(lower_sparse, "LEAST_WEIGHTS", 1)
    curves = {
        "dense": flat(dict.fromkeys(breakeven.SAMPLES, 1.0)),
        "sparse": flat({n: times.get(n, 0.9) for n in breakeven.SAMPLES}),
    }
    monkeypatch.setattr(breakeven, "curve", lambda name, *_, **__: curves[name])
    data = file_of("Gemm", None, {"transB": 1})
    with artifact.Reader(data) as reader:  # the operator's bytes stand for the weights
        size = lower_sparse.find(lowering.Network(reader, 1))[0].fields.bytes.size
    curves["sparse"] = scaled(curves["sparse"], 48 * 64 / size)

    assert runtime.open(data, threads=1, batch=batch).explain()[0].kernel == kernel


def scaled(curve, factor):
    return breakeven.Curve(tuple((n, {k: ms * factor for k, ms in row.items()}) for n, row in curve.rows))


def test_a_batch_is_at_least_one_sample(packed):
    with pytest.raises(OptionError, match="batch is 0, but must be at least 1"):
        runtime.open(packed, batch=0)


def test_a_file_opened_for_one_sample_takes_others_too(packed):
    x = np.random.default_rng(0).standard_normal((7, 1, 28, 28)).astype(np.float32)

    assert runtime.open(packed, batch=1)(x).shape == (7, 10)


def test_a_curve_interpolates_the_cost_of_one_weight():
    found = breakeven.Curve(
        tuple(
            (size, dict.fromkeys(breakeven.SAMPLES, size * cost))
            for size, cost in ((100, 1.0), (10_000, 3.0))
        )
    )

    assert found.ms(1000, 1) == pytest.approx(2000)
    assert found.ms(10, 1) == pytest.approx(10)
    assert found.ms(10**6, 1) == pytest.approx(3e6)
    assert found.ms(100, 128) == pytest.approx(200)


@pytest.mark.parametrize(
    ("size_bytes", "traffic"),
    [(0, 0), (2**20, 0), (2**20 + 1, 2**23), (11_700_000, 2**23), (3 * 2**23 + 1, 2**26), (10**9, 2**26)],
)
def test_what_the_other_layers_displace_is_one_of_three_levels(size_bytes, traffic):
    assert breakeven.level(size_bytes) == traffic


def test_a_layer_is_judged_by_what_the_others_do_to_the_caches(monkeypatch):
    asked = []
    monkeypatch.setattr(lower_sparse, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(lowering.Network, "_bytes", 20_000_000)

    def curve(name, threads, measure, traffic):
        asked.append((name, traffic))
        return flat(dict.fromkeys(breakeven.SAMPLES, 1.0))

    monkeypatch.setattr(breakeven, "curve", curve)

    runtime.open(file_of("Gemm", None, {"transB": 1}))

    assert asked == [("sparse", 2**23), ("dense", 2**23)]


def test_a_curve_is_measured_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path))
    monkeypatch.setattr(breakeven, "SIDES", (32, 64))
    monkeypatch.setattr(breakeven, "SECONDS", 0.001)
    breakeven.curve.cache_clear()
    try:
        first = breakeven.dense(1)
        (file,) = tmp_path.iterdir()
        breakeven.curve.cache_clear()
        monkeypatch.setattr(breakeven, "_dense", lambda threads, traffic: pytest.fail("measured twice"))
        assert breakeven.dense(1) == first
        for damaged in ("[]", '[[5, {"1": 1}], [4, {"1": 1}]]', "[[5, {}]]", '{"dense": 1}', "[1]", "x"):
            breakeven.curve.cache_clear()
            file.write_text(damaged)
            monkeypatch.setattr(breakeven, "_dense", lambda threads, traffic: first.rows)
            assert breakeven.dense(1) == first
    finally:
        breakeven.curve.cache_clear()


def test_unknown_kernels_are_refused(packed):
    with pytest.raises(OptionError, match=r"'sprase'\. Did you mean 'sparse'"):
        runtime.open(packed, kernels="sprase")


def test_the_graph_asks_for_our_library_only_when_it_needs_it(packed):
    with artifact.Reader(packed) as reader:
        assert not lower.plan(reader, kernels="dense").custom
        plan = lower.plan(reader, kernels="sparse")
        assert plan.custom
        assert graph.fixed_batch(reader.graph) is None


def test_another_process_forces_a_variant_from_outside(packed, tmp_path):
    path = tmp_path / "m.goss"
    path.write_bytes(packed)
    code = (
        "import json, sys, numpy as np, gossamer as gs\n"
        "y = gs.open(sys.argv[1], kernels='sparse')(np.ones((1, 1, 28, 28), np.float32))\n"
        "print(json.dumps([y[0].tolist(), 'torch' in sys.modules]))"
    )
    results = []
    for isa in native.VARIANTS:
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env=os.environ | {"GOSSAMER_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        result, with_torch = json.loads(ran.stdout)
        assert not with_torch
        results.append(np.array(result))

    for result in results[1:]:
        assert relative(results[0], result) < 1e-5
