"""What happens to weights on the way into the graph: transposed, shared, merged with norms, lost."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, runtime
from gossamer.errors import ExportError
from gossamer.export import pack
from gossamer.export.match import Weight, absorb_transposes, find, merge_copies, permutation


def tensors(path):
    with artifact.Reader(path) as reader:
        return {tensor.name: tensor for tensor in reader.tensors()}


def initializer(name, values):
    return ir.Value(
        name=name, const_value=ir.tensor(values, name=name), type=ir.TensorType(ir.DataType.FLOAT)
    )


def graph_of(*initializers):
    """A model that adds up its initialisers."""
    node = ir.node("Sum", initializers)
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=initializers, opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


def rows(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("perm", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_renamed_and_transposed_initialiser_is_found_by_its_values(perm):
    weight = rows(3, 4, 5)
    model = graph_of(initializer("val_7", np.ascontiguousarray(weight.transpose(perm))))

    found, lost = find(model, {"layer.weight": weight}, ())

    assert found["val_7"].name == "layer.weight"
    assert (found["val_7"].perm or (0, 1, 2)) == perm
    assert lost == {}


def test_values_that_differ_in_one_element_are_another_weight():
    weight = rows(6, 6)
    changed = weight.T.copy()
    changed[2, 3] += 1e-6

    assert permutation(weight, initializer("w", changed)) is None
    assert list(find(graph_of(initializer("w", changed)), {"weight": weight}, ())[1]) == ["weight"]


def test_copies_of_one_weight_in_two_orders_become_one_initialiser():
    weight = rows(4, 4)
    model = graph_of(
        initializer("a", weight), initializer("b", weight.T.copy()), initializer("c", weight.copy())
    )
    found, _ = find(model, {"weight": weight}, ())

    merge_copies(model, found)

    assert len(model.graph.initializers) == len(found) == 1
    assert [node.op_type for node in model.graph] == ["Transpose", "Sum"]


def test_a_transpose_with_one_reader_moves_into_the_file():
    weight = initializer("weight", rows(3, 5))
    weight.shape = ir.Shape((3, 5))
    turned = ir.node("Transpose", [weight], {"perm": [1, 0]})
    used = ir.node("Relu", turned.outputs)
    graph = ir.Graph([], used.outputs, nodes=[turned, used], initializers=[weight], opset_imports={"": 20})
    found: dict[str, Weight] = {}

    absorb_transposes(ir.Model(graph, ir_version=10), found)

    assert [node.op_type for node in graph] == ["Relu"]
    assert found["weight"].perm == (1, 0)


def test_a_linear_on_three_axes_keeps_its_format_and_is_transposed_when_opened(tmp_path):
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    formats.attach(model[0], "weight", formats.Codebook(bits=3))

    packed = pack(model, tmp_path / "m.goss", torch.randn(2, 5, 8))

    stored = tensors(packed.path)["0.weight"]
    assert (stored.stored.layout, stored.stored.shape, stored.perm) == ("codebook", (6, 8), (1, 0))


def test_a_tied_weight_is_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(30, 16), nn.Linear(16, 30, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.head(self.table(ids))

    packed = pack(Tied(), tmp_path / "m.goss", torch.randint(0, 30, (2, 7)))

    assert len(tensors(packed.path)) == 1
    assert packed.size_bytes < 30 * 16 * 4 + 400


class Normed(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.2, 3)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_norms_that_were_never_trained_share_their_vectors_and_still_pack(tmp_path):
    block = [nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)]
    model = nn.Sequential(*block, nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 4, 9, 9)

    packed = pack(model, tmp_path / "m.goss", x)

    np.testing.assert_allclose(runtime.open(packed.path)(x.numpy()), model(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_moves_into_a_plain_convolution(bias, tmp_path):
    model = Normed(bias).eval()
    norm = model.norm
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()

    stored = tensors(pack(model, tmp_path / "m.goss", torch.randn(2, 3, 9, 9)).path)

    assert set(stored) == {"conv.weight", "conv.bias" if bias else "norm.shift"}
    want = model.conv.weight.detach() * scale[:, None, None, None]
    np.testing.assert_allclose(artifact.rebuild(stored["conv.weight"]), want.numpy(), rtol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_a_norm_after_a_weight_with_a_format_becomes_two_vectors(bias, tmp_path):
    model = Normed(bias).eval()
    formats.attach(model.conv, "weight", formats.Codebook(bits=4))
    norm, held = model.norm, model.conv.bias.detach() if bias else torch.zeros(8)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    shift = norm.bias.detach() + scale * (held - norm.running_mean)

    stored = tensors(pack(model, tmp_path / "m.goss", torch.randn(2, 3, 9, 9)).path)

    assert set(stored) == {"conv.weight", "norm.scale", "norm.shift"}
    assert stored["conv.weight"].stored.layout == "codebook"
    for name, want in (("norm.scale", scale), ("norm.shift", shift)):
        np.testing.assert_allclose(artifact.rebuild(stored[name]).ravel(), want.numpy(), rtol=1e-5, atol=1e-6)


def test_onnx_runtime_merges_the_two_vectors_into_the_convolution(tmp_path):
    import onnx
    import onnxruntime

    model = Normed(True).eval()
    formats.attach(model.conv, "weight", formats.Codebook(bits=4))
    plain = runtime.unpack(pack(model, tmp_path / "m.goss", torch.randn(2, 3, 9, 9)).path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC

    onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])

    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == ["Conv"]


def test_a_norm_before_a_convolution_is_two_vectors_too(tmp_path):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)).eval()
    model[0].running_mean.normal_()

    stored = tensors(pack(model, tmp_path / "m.goss", torch.randn(2, 3, 6, 6)).path)

    assert set(stored) == {"0.scale", "0.shift", "2.weight", "2.bias"}


def test_a_weight_that_forward_computes_with_keeps_its_format(tmp_path):
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 6))

        def forward(self, x):
            first, second = self.weight.chunk(2)
            return x @ first.T + (x @ (second * 2).T).tanh()

    model = Halves()
    formats.attach(model, "weight", formats.Codebook(bits=3))

    packed = pack(model, tmp_path / "m.goss", torch.randn(2, 6))

    assert {name: item.stored.layout for name, item in tensors(packed.path).items()} == {"weight": "codebook"}


def test_a_format_that_would_be_lost_is_an_error_or_with_leave_a_note(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Linear(6, 8))
    formats.attach(model[0], "weight", formats.Codebook(bits=3))
    monkeypatch.setattr("gossamer.export.packing.find", lambda *_: ({}, {"0.weight": "it was folded"}))

    with pytest.raises(
        ExportError, match=r"weight '0\.weight' \(codebook\) would lose its format: it was folded"
    ):
        pack(model, tmp_path / "m.goss", torch.randn(2, 6))
    packed = pack(model, tmp_path / "m.goss", torch.randn(2, 6), allow_dense=True)

    assert packed.notes == ("weight 0.weight could not be stored as codebook: it was folded",)
    assert runtime.open(packed.path).notes == list(packed.notes)


def test_a_weight_that_forward_never_reads_is_left_out_with_a_note(tmp_path):
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x):
            return self.used(x)

    model = Spare()
    for layer in (model.used, model.spare):
        formats.attach(layer, "weight", formats.Codebook(bits=2))

    packed = pack(model, tmp_path / "m.goss", torch.randn(2, 6))

    assert packed.notes == ("weight spare.weight is not stored: forward does not use it",)
    assert set(tensors(packed.path)) == {"used.weight", "used.bias"}


def test_half_precision_weights_stay_half_precision(tmp_path):
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)).half()

    packed = pack(model, tmp_path / "m.goss", torch.randn(2, 32).half())

    assert packed.size_bytes < 2 * (32 * 16 + 16 + 64 + 4) + 400
    assert {item.dtype for item in tensors(packed.path).values()} == {"float16"}
