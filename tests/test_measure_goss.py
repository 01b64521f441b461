"""Packed files are counted as they run: published figures, stored bytes, weights read one at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats
from gossamer.errors import ArtifactError
from gossamer.measure.onnx.graph import record_goss, record_onnx
from gossamer.measure.schedule import fold_norms
from onnx_samples import model, node, normal, ops, total, trained, uncounted


@pytest.mark.parametrize(
    ("name", "shape", "macs", "parameters"),
    [("lenet5", (1, 28, 28), 2_293_000, 431_080), ("lenet300", (784,), 266_200, 266_610)],
)
def test_packed_reference_networks_have_the_published_figures(name, shape, macs, parameters, tmp_path):
    gs.pack(gs.load_model(name), tmp_path / "m.goss", torch.randn(2, *shape))

    packed, plain = record_goss(tmp_path / "m.goss"), record_onnx(gs.unpack(tmp_path / "m.goss"))

    assert total(packed).macs == total(plain).macs == macs
    assert trained(packed) == trained(plain) == parameters
    assert total(packed) == total(plain)
    assert not uncounted(packed)
    assert not packed.notes


@pytest.mark.slow
def test_a_packed_resnet20_costs_the_sum_of_its_layers(tmp_path):
    network = gs.load_model("resnet20")
    gs.pack(network, tmp_path / "m.goss", torch.randn(2, 3, 32, 32))
    first = 3 * 9 * 16 * 32 * 32
    stages = [(16, 16, 32, 1), (16, 32, 16, 2), (32, 64, 8, 2)]
    rest = sum(i * 9 * o * s * s + 5 * o * 9 * o * s * s for i, o, s, _ in stages)

    recorded = record_goss(tmp_path / "m.goss")

    assert total(recorded).macs == first + rest + 640 == 40_551_040
    products = [o.layer for o in recorded.schedule.operations if o.op in ("Conv", "Gemm")]
    modules = [key.removesuffix(".weight") for key, value in network.state_dict().items() if value.dim() > 1]
    assert products == modules


def test_stored_bytes_and_the_head_add_up_to_the_file(tmp_path):
    network = gs.load_model("lenet5")
    with torch.no_grad():
        network.ip1.weight[torch.rand(500, 800) < 0.9] = 0
    formats.attach(network.ip1, "weight", formats.Sparse(values=formats.Codebook(bits=4)))
    path = tmp_path / "m.goss"
    gs.pack(network, path, torch.randn(2, 1, 28, 28))

    recorded = record_goss(path)

    head = sum(row.size_bytes for row in artifact.inspect(path).head)
    assert sum(weight.stored_bytes for weight in recorded.weights) + head == path.stat().st_size
    values = {item.name: artifact.rebuild(item) for item in artifact.read(path).tensors}
    for weight in recorded.weights:
        assert weight.nonzero == np.count_nonzero(values[weight.name])
    zeros = 400_000 - np.count_nonzero(values["ip1.weight"])
    assert zeros > 300_000
    assert total(recorded).macs_nonzero == 2_293_000 - zeros


def test_large_weights_are_not_in_memory_together(tmp_path):
    nodes = [node("MatMul", f"h{at} w{at}", f"h{at + 1}") for at in range(8)]
    made = model(nodes, {"h0": (1, 512), **{f"w{at}": (512, 512) for at in range(8)}}, outputs="h8")
    del made.graph.input[1:]
    tensors = []
    for at in range(8):
        stored = artifact.Stored(
            "dense", (512, 512), {"values": artifact.Floats(normal(512, 512), "float32")}
        )
        tensors.append(artifact.Tensor(f"layer{at}.weight", f"w{at}", stored))
    artifact.write(tmp_path / "m.goss", artifact.Artifact(made.SerializeToString(), tuple(tensors)))
    del tensors
    record_goss(tmp_path / "m.goss")  # imports and caches

    tracemalloc.start()
    recorded = record_goss(tmp_path / "m.goss")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert trained(recorded) == 8 * 512 * 512
    assert peak < 4 * 512 * 512 * 4  # bytes read, the array, and a copy of one weight


def test_a_norm_that_packing_keeps_is_folded_like_any_other(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
    network[1].running_mean.normal_()
    formats.attach(network[0], "weight", formats.Codebook(bits=2))
    gs.pack(network, tmp_path / "m.goss", torch.randn(2, 3, 8, 8))

    recorded = record_goss(tmp_path / "m.goss")
    folded = fold_norms(recorded.schedule).operations

    assert ops(recorded) == ["Conv", "Mul+Add", "Relu"]
    assert [operation.op for operation in folded] == ["Conv", "Relu"]
    assert folded[0].cost.bias_adds == 8 * 6 * 6


@pytest.mark.slow
def test_a_packed_recurrent_network_equals_its_unpacked_self(tmp_path):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    gs.pack(Reader(), tmp_path / "m.goss", torch.randn(2, 5, 6))

    packed = record_goss(tmp_path / "m.goss", {"x": (3, 5, 6)})
    plain = record_onnx(gs.unpack(tmp_path / "m.goss"), {"x": (3, 5, 6)})

    steps = 3 * 5 * 2
    assert total(packed).macs == steps * 4 * 8 * (6 + 8) + steps * 4 * 8 * (16 + 8) + 15 * 16 * 3
    assert total(packed) == total(plain)
    assert trained(packed) == sum(value.numel() for value in Reader().parameters())
    assert {weight.layer for weight in packed.weights} == {"rnn", "head"}


def test_a_file_that_is_no_packed_file_is_refused(tmp_path):
    (tmp_path / "m.goss").write_bytes(b"nothing")

    with pytest.raises(ArtifactError):
        record_goss(tmp_path / "m.goss")


class Attending(nn.Module):
    """Multi-head self-attention of 4 heads of 8."""

    def __init__(self):
        super().__init__()
        self.project, self.back = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = self.project(x).reshape(x.shape[0], -1, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.back(y.transpose(1, 2).flatten(2))


def test_exported_attention_costs_its_projections_scores_and_sums(tmp_path):
    gs.pack(Attending(), tmp_path / "m.goss", torch.randn(2, 6, 32))

    recorded = record_goss(tmp_path / "m.goss", {"x": (2, 6, 32)})

    assert total(recorded).macs == 2 * 6 * 32 * (96 + 32) + 2 * 2 * 4 * 6 * 6 * 8
    assert total(recorded).bias_adds == 2 * 6 * (96 + 32)
    assert total(recorded).other_ops["transcendental"] == 2 * 4 * 6 * 6
    assert trained(recorded) == 32 * 96 + 96 + 32 * 32 + 32
    products = [operation.layer for operation in recorded.schedule.operations if operation.cost.bias_adds]
    assert products == ["project", "back"]
