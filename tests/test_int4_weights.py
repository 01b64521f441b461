"""Weights of 4 bits in groups of inputs, from the step to the packed file, on small networks and on a real one."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import gossamer as gs
import minilm
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import artifact, formats, recipe, runtime
from gossamer.errors import OptionError
from gossamer.formats import MaskedUniform, Uniform
from gossamer.methods.float_twin import float_twin
from gossamer.runtime import unpack
from quantized_samples import constants, graph_of


@pytest.fixture(scope="module")
def data():
    """The bundled digits, small splits."""
    digits = gs.load_data("digits")
    few = {name: getattr(digits, name).subset(range(300)) for name in ("train", "validation", "test")}
    return dataclasses.replace(digits, **few)


@pytest.fixture(scope="module")
def trained(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 48), nn.ReLU(), nn.Linear(48, 10))
    gs.apply(model, gs.Train(epochs=4, lr=3e-3, batch_size=32), data)
    return model.eval()


def nibbles(packed):
    """{weight: the signed codes [O, I] that MatMulNBits reads}."""
    graph = graph_of(packed)
    known, found = constants(graph), {}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            columns = {item.name: item.i for item in node.attribute}["K"]
            held = known[node.input[1]]
            codes = np.stack([held & 15, held >> 4], axis=-1).reshape(len(held), -1)
            found[node.input[1]] = codes[:, :columns].astype(int) - 8
    return found


@pytest.mark.parametrize("group", [32, 64, 128])
def test_a_network_in_groups_runs_packed_and_costs_four_bits_and_a_scale(trained, data, group, tmp_path):
    model = copy.deepcopy(trained)

    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=group), data)
    packed = gs.pack(model, tmp_path / "m.goss", data.batch(2))

    x = data.batch(50)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(runtime.open(packed.path)(x), expected, atol=1e-5)
    assert len(nibbles(packed.path)) == (2 if group < 48 else 1)  # one group: a scale per channel
    assert not packed.notes
    with artifact.Reader(packed.path) as reader:
        weight, scale = reader.tensor("1.weight"), reader.tensor("1.weight.scale")
    assert scale.stored.fields["values"].dtype == "bfloat16"
    rows = {row.name: row.size_bytes for row in artifact.inspect(packed.path).tensors}
    bits = 8 * (rows["1.weight"] + rows["1.weight.scale"]) / (784 * 48)
    assert weight.dtype == "uint8"
    filled = -(-784 // group) * group / 784
    assert bits < (4 + 16 / group) * filled + 0.05  # codes, scales, checksums


def test_any_engine_can_run_what_unpack_writes(trained, data, tmp_path):
    model = copy.deepcopy(trained)
    gs.apply(model, gs.Quantize(bits=4, granularity="group"), data)
    packed = gs.pack(model, tmp_path / "m.goss", data.batch(2))

    session = ort.InferenceSession(unpack(packed.path), providers=["CPUExecutionProvider"])

    x = data.batch(8)
    [answer] = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(answer, runtime.open(packed.path)(x), atol=1e-6)


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**16),
    density=st.floats(0.02, 0.9),
    group=st.sampled_from([32, 64, 128]),
    columns=st.sampled_from([3, 31, 33, 64, 140, 300]),
    rounded=st.booleans(),
)
def test_pruned_weights_are_exactly_zero_in_the_packed_file(
    tmp_path_factory, seed, density, group, columns, rounded
):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(columns, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
        inputs = torch.randn(64, columns).numpy()
    samples = gs.data.Split(inputs, np.zeros(64, np.int64))
    data = gs.Data("noise", samples, samples, samples, tuple("01234"), gs.Preprocess())
    gs.apply(model, gs.Prune(density=density), data)
    pruned = (model[0].weight == 0).numpy()

    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=group), data)
    if rounded:
        gs.apply(model, gs.RoundWeights(samples=64), data)
    packed = gs.pack(model, tmp_path_factory.mktemp("pruned") / "m.goss", data.batch(2))

    held = nibbles(packed.path) or constants(graph_of(packed.path))
    found = [value for value in held.values() if sorted(value.shape) == sorted(pruned.shape)]
    assert len(found) == 1
    assert not (found[0] if found[0].shape == pruned.shape else found[0].T)[pruned].any()
    assert bool(nibbles(packed.path)) == (columns > group)


def test_training_after_it_leaves_pruned_weights_zero(trained, data):
    model = copy.deepcopy(trained)
    steps = [gs.Prune(sparsity=0.7), gs.Quantize(bits=4, granularity="group"), gs.Finetune(epochs=1)]
    gs.apply(model, steps[:1], data)
    pruned = model[1].weight == 0

    gs.apply(model, steps[1:], data)

    assert isinstance(formats.attached(model)["1.weight"].format, MaskedUniform)
    assert pruned.float().mean() > 0.65
    assert not model[1].weight[pruned].any()


def test_rounding_in_training_after_it_leaves_pruned_weights_zero(trained, data):
    model = copy.deepcopy(trained)
    steps = [
        gs.Prune(sparsity=0.7),
        gs.Quantize(bits=8, granularity="channel"),
        gs.QuantizeAware(bits=8, epochs=1, weights="Uniform", weight_options={"granularity": "channel"}),
    ]
    gs.apply(model, steps[:1], data)
    pruned = model[1].weight == 0

    gs.apply(model, steps[1:], data)

    assert isinstance(formats.attached(model)["1.weight"].format, MaskedUniform)
    assert not model[1].weight[pruned].any()


def test_a_pruned_weight_has_a_scale_per_channel_too(trained, data):
    model = copy.deepcopy(trained)

    gs.apply(model, [gs.Prune(sparsity=0.7), gs.Quantize(bits=8, granularity="channel")], data)

    assert formats.parts_of(model, "1.weight")[1].numel() == 48


def test_rounding_by_outputs_is_nearer_than_the_nearest_and_keeps_the_groups(trained, data):
    model = copy.deepcopy(trained)
    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=64), data)
    x = torch.from_numpy(data.preprocess(data.test.inputs[np.arange(100)]))
    wanted = float_twin(model)(x)
    nearest = float((model(x) - wanted).detach().square().mean())

    gs.apply(model, gs.RoundWeights(samples=256), data)

    assert float((model(x) - wanted).detach().square().mean()) < nearest
    scale = formats.parts_of(model, "1.weight")[1]
    assert torch.equal(scale, scale.bfloat16().float())
    assert scale.numel() == 48 * 13


def test_convolutions_and_tables_are_coded_with_four_bits_too(tmp_path):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(50, 64), nn.Conv1d(64, 8, 3)

        def forward(self, ids):
            return self.conv(self.table(ids).transpose(1, 2))

    model = Mixed().eval()

    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=64))
    packed = gs.pack(model, tmp_path / "m.goss", torch.arange(12).reshape(2, 6))

    ids = torch.arange(40).reshape(4, 10)[:, :6]
    with torch.no_grad():
        np.testing.assert_allclose(runtime.open(packed.path)(ids.numpy()), model(ids).numpy(), atol=1e-5)
    assert {row.name: row.bits_per_weight < 5 for row in artifact.inspect(packed.path).tensors} == {
        "table.weight": True,
        "conv.weight": True,
        "conv.bias": False,
    }


def test_a_wrong_group_is_refused_at_once():
    with pytest.raises(OptionError, match="group is a number of inputs"):
        gs.Quantize(bits=4, granularity="group", group=0)


def test_the_recipe_makes_an_eighth_and_keeps_the_answers(data, trained, tmp_path):
    model = copy.deepcopy(trained)
    x = data.batch(100)
    with torch.no_grad():
        before = model(torch.from_numpy(x)).argmax(1).numpy()

    gs.apply(model, list(recipe.load("int4-weights").steps), data)
    packed = gs.pack(model, tmp_path / "m.goss", data.batch(2))

    assert (runtime.open(packed.path)(x).argmax(1) == before).mean() >= 0.97
    assert packed.size_bytes < 4 * (784 * 48 + 480) / 6.5


@pytest.mark.slow
def test_a_real_sentence_encoder_keeps_its_similarities(tmp_path):
    texts = minilm.sentences(140)
    data = minilm.text_data(texts[100:], length=48)
    model = minilm.Tokens(minilm.encoder()).eval()
    tokens = minilm.tokenize(texts[:40], length=48)[0]
    with torch.no_grad():
        wanted = model(tokens).numpy()

    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=32, fit="max"), data)
    packed = gs.pack(model, tmp_path / "m.goss", tokens[:2])

    session = runtime.open(packed.path, threads=1)
    similarity = (session(tokens.numpy()) * wanted).sum(1)
    products = [node.op_type for node in graph_of(packed.path).node].count("MatMulNBits")
    assert products == 36  # six in each of six layers
    assert packed.size_bytes < 91e6 / 7
    assert similarity.mean() > 0.93
    assert onnx.load_from_string(unpack(packed.path)).opset_import


def test_grids_in_groups_are_those_of_the_format(trained, data):
    model = copy.deepcopy(trained)

    gs.apply(model, gs.Quantize(bits=4, granularity="group", group=64, fit="max"), data)

    format = formats.attached(model)["1.weight"].format
    assert format == Uniform(bits=4, granularity="group", group=64, scale_dtype="bfloat16")
