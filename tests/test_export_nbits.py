"""Weights with a scale per group of inputs: packed for MatMulNBits, and computed with as they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, codec, formats, runtime
from gossamer.export import pack
from gossamer.export.nbits import pack_codes
from gossamer.formats import Uniform
from quantized_samples import constants, graph_of


def grouped(bits=4, group=32):
    return Uniform(bits=bits, granularity="group", group=group)


def linear(*sizes, format, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(*(nn.Linear(one, two) for one, two in pairwise(sizes)))
    for layer in model:
        formats.attach(layer, "weight", format)
    return model


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("columns", [32, 37, 64])
def test_the_first_code_of_a_byte_lies_in_its_lowest_bits(bits, columns):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    codes = np.random.default_rng(0).integers(low, high, (5, columns))

    packed = pack_codes(codes, 32, bits)

    assert packed.shape == (5, -(-columns // 32), 32 * bits // 8)
    for row in range(5):
        stream = int.from_bytes(packed[row].tobytes(), "little")
        for column in range(packed.shape[1] * 32):
            code = (stream >> bits * column & (2**bits - 1)) - 2 ** (bits - 1)
            assert code == (codes[row, column] if column < columns else 0)


@pytest.mark.parametrize(("bits", "kept"), [(2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_product_runs_on_packed_weights(bits, kept, axes, tmp_path):
    model = linear(70, 33, 20, format=grouped(bits))
    x = noise(3, 70) if axes == 2 else noise(2, 3, 70)

    packed = pack(model, tmp_path / "m.goss", x)

    graph = graph_of(packed.path)
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    sizes = [{item.name: item.i for item in node.attribute} for node in products]
    assert sizes == [
        {"K": 70, "N": 33, "bits": kept, "block_size": 32},
        {"K": 33, "N": 20, "bits": kept, "block_size": 32},
    ]
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(runtime.open(packed.path)(x.numpy()), expected, atol=2e-6)
    assert constants(graph)["w0"].dtype == np.uint8
    assert packed.notes == ()


def test_the_stored_bytes_hold_exactly_the_codes_of_the_format(tmp_path):
    model = linear(70, 33, format=grouped(4))
    codes = model[0].parametrizations.weight[0].format.codes(*formats.parts_of(model, "0.weight")).numpy()

    packed = pack(model, tmp_path / "m.goss", noise(3, 70))

    with artifact.Reader(packed.path) as reader:
        tensor = reader.tensor("0.weight")
    assert (tensor.dtype, tensor.stored.layout) == ("uint8", "integers")
    assert np.array_equal(artifact.rebuild(tensor), pack_codes(codes, 32, 4))


def test_codes_cost_by_twos_what_they_cost_one_by_one():
    format = grouped(4)
    stored = format.store(*format.encode(noise(256, 1024)))
    codes = stored.fields["codes"].values
    signed = codes.reshape(256, 1024).astype(int) - stored.options["offset"]

    by_one = len(codec.choose(codes, 4).payload)
    by_two = len(codec.choose(pack_codes(signed, 32, 4).ravel(), 8).payload)

    assert by_two < 1.01 * by_one


@pytest.mark.parametrize("group", [8, 24, 512])
def test_groups_that_the_operator_does_not_take_are_unpacked_with_a_note(group, tmp_path):
    model = linear(600, 8, format=grouped(4, group))

    packed = pack(model, tmp_path / "m.goss", noise(2, 600))

    expected = (
        f"0.weight is unpacked to floats when the file is opened: groups of {group}, but MatMulNBits takes"
    )
    assert [note.startswith(expected) for note in packed.notes] == [True]
    assert [node.op_type for node in graph_of(packed.path).node] == ["Gemm"]


def test_a_weight_with_another_reader_is_unpacked_with_a_note(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = linear(64, 40, format=grouped())[0]

        def forward(self, ids):
            return self.head(nn.functional.embedding(ids, self.head.weight))

    packed = pack(Tied(), tmp_path / "m.goss", torch.arange(6).reshape(2, 3))

    assert packed.notes == (
        "head.weight is unpacked to floats when the file is opened: Gather reads it in floats",
    )


def test_a_convolution_keeps_its_grouped_weight_as_it_is(tmp_path):
    model = nn.Sequential(nn.Conv2d(8, 4, 3))
    formats.attach(model[0], "weight", grouped(4, 16))

    packed = pack(model, tmp_path / "m.goss", noise(2, 8, 5, 5))

    with artifact.Reader(packed.path) as reader:
        assert reader.outline("0.weight").node.layout == "uniform"
    assert packed.notes == ()
