"""Transformers on integers: layer norms stay float, what they make is rounded for the products that read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gossamer as gs
import minilm
from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import quantizers
from gossamer.data import Split
from quantized_samples import optimized


class Block(nn.Module):
    """A layer norm, a perceptron around which the input passes, and a mean."""

    def __init__(self):
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = x + self.narrow(nn.functional.gelu(self.wide(self.norm(x))))
        return self.head(x.mean(1))


@pytest.fixture
def data():
    inputs = np.random.default_rng(0).standard_normal((64, 6, 16)).astype(np.float32)
    split = Split(inputs, np.arange(64) % 4)
    return gs.Data("noise", split, split, split, tuple("0123"), gs.Preprocess())


def test_what_a_layer_norm_makes_is_rounded(data):
    torch.manual_seed(0)
    model = Block().eval()

    gs.apply(model, [gs.Calibrate(samples=32), gs.Quantize(bits=8, granularity="channel")], data)

    norms = [i for i, kind in enumerate(model.activation_quantizers.kinds) if kind == "norm"]
    assert norms
    seen = []
    model.wide.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    model(torch.from_numpy(data.train.inputs[:8]))
    grid = quantizers.quantizers(model)[f"call{norms[0]}"].grid()
    assert torch.equal(seen[0], grid.fake(seen[0]))


def test_products_behind_a_layer_norm_run_on_integers(data, tmp_path):
    torch.manual_seed(0)
    model = Block().eval()
    x = torch.from_numpy(data.train.inputs[:16])
    with torch.no_grad():
        before = model(x)

    gs.apply(model, [gs.Calibrate(samples=64), gs.Quantize(bits=8, granularity="channel")], data)
    packed = gs.pack(model, tmp_path / "m.goss", x[:2])

    answer = gs.open(packed.path)(x.numpy())
    np.testing.assert_allclose(answer, before.numpy(), atol=0.05)
    kinds = optimized(packed.path, tmp_path)
    assert sum(kinds[name] for name in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm")) == 3


@pytest.mark.slow
def test_a_real_sentence_encoder_of_integers_keeps_its_similarities(tmp_path):
    texts = minilm.sentences(80)
    model = minilm.Tokens(minilm.encoder()).eval()
    tokens = minilm.tokenize(texts[:32], length=48)[0]
    with torch.no_grad():
        wanted = model(tokens).numpy()

    steps = [gs.Calibrate(samples=32), gs.Quantize(bits=8, granularity="channel", fit="max")]
    gs.apply(model, steps, minilm.text_data(texts[40:], length=48))
    packed = gs.pack(model, tmp_path / "m.goss", tokens[:2])

    similarity = (gs.open(packed.path, threads=1)(tokens.numpy()) * wanted).sum(1)
    assert similarity.mean() > 0.98
    assert packed.size_bytes < 91e6 / 3.9
