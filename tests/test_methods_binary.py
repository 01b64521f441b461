"""Binary and ternary training: gradients, clipping and signs as the papers define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gossamer import formats
from gossamer.artifact import layouts
from gossamer.blocks import MultiSign, Sign
from gossamer.data import Split
from gossamer.data.preprocess import Preprocess
from gossamer.data.split import Data
from gossamer.errors import OptionError
from gossamer.formats.binary import glorot
from gossamer.methods.binary_connect import BinaryConnect
from gossamer.methods.bireal import BiReal
from gossamer.methods.bnn import BNN
from gossamer.methods.ttq import TTQ
from gossamer.methods.xnor_net import XNOR
from gossamer.training import fit
from gossamer.training.clip_latent import ClipLatent


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "tree", [BinaryConnect(), BinaryConnect(real=True), BNN(), XNOR(), XNOR(centre=False), BiReal(), TTQ()]
)
@pytest.mark.parametrize("shape", [(6, 10), (4, 3, 3, 3), (17,)], ids=str)
def test_stored_fields_rebuild_the_evaluated_weight_bit_for_bit(tree, shape):
    parts = tree.encode(normal(*shape))

    assert np.array_equal(layouts.rebuild(tree.store(*parts)), tree.decode(*parts).detach().numpy())


def test_stochastic_signs_are_drawn_with_the_hard_sigmoid_of_the_weight():
    limit = glorot(torch.Size([4, 5000]))
    latent = torch.tensor([-2.0, -0.5, 0.0, 0.5])[:, None].expand(4, 5000) * limit
    torch.manual_seed(0)

    drawn = BinaryConnect(stochastic=True).decode_training(latent.contiguous())

    assert drawn.abs().unique().tolist() == pytest.approx([limit])
    assert (drawn > 0).float().mean(dim=1).tolist() == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.02)


def test_a_stochastic_weight_is_drawn_while_training_and_fixed_in_evaluation():
    layer = nn.Linear(50, 40)
    formats.attach(layer, "weight", BinaryConnect(stochastic=True))

    layer.train()
    first, second = layer.weight.detach(), layer.weight.detach()
    layer.eval()

    assert not torch.equal(first, second)
    assert torch.equal(layer.weight, layer.weight)
    assert layer.weight.unique().numel() == 2


def test_binary_connect_passes_the_gradient_of_the_binary_weight_to_the_real_one():
    latent = normal(5, 7).requires_grad_(True)
    upstream = normal(5, 7, seed=1)

    (BinaryConnect().decode(latent) * upstream).sum().backward()

    # dL/dw_b of equation 4, times the constant H that this format multiplies the sign with
    assert torch.allclose(latent.grad, upstream * glorot(latent.shape))


def test_xnor_weights_are_signs_of_centred_weights_with_their_mean_magnitude():
    latent = 0.3 * normal(3, 4, 2, 2) + 0.2

    weight = XNOR().decode(latent)

    centred = latent - latent.mean(dim=1, keepdim=True)
    for o in range(3):
        assert torch.allclose(weight[o].abs(), centred[o].abs().mean().expand(4, 2, 2))
        assert bool(((weight[o] > 0) == (centred[o] >= 0)).all())


def test_the_magnitude_aware_gradient_takes_the_scale_as_a_constant():
    latent = (1.5 * normal(3, 6)).requires_grad_(True)
    upstream = normal(3, 6, seed=2)

    (BiReal().decode(latent) * upstream).sum().backward()

    inside = latent.detach().abs() <= 1
    assert torch.allclose(latent.grad, upstream * inside * latent.detach().abs().mean(dim=1, keepdim=True))


def test_trained_ternary_values_have_the_gradients_of_the_paper():
    latent = torch.tensor([[0.9, -0.8, 0.01], [0.5, -0.02, -1.0]], requires_grad=True)
    positive, negative = torch.tensor([0.7], requires_grad=True), torch.tensor([0.4], requires_grad=True)
    upstream = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    weight = TTQ(threshold=0.05).decode(latent, positive, negative)
    (weight * upstream).sum().backward()

    assert weight.tolist() == [pytest.approx(row) for row in ([0.7, -0.4, 0], [0.7, 0, -0.4])]
    assert float(positive.grad) == 1 + 4
    assert float(negative.grad) == -(2 + 6)
    assert latent.grad.tolist() == [pytest.approx(row) for row in ([0.7, 0.8, 3], [2.8, 5, 2.4])]


def test_latent_weights_stay_within_their_limits_through_training():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8, bias=False), nn.Linear(8, 3))
    formats.attach(model[1], "weight", BNN())
    formats.attach(model[2], "weight", BinaryConnect())
    rng = np.random.default_rng(0)
    split = Split(rng.normal(size=(64, 12)).astype(np.float32), rng.integers(0, 3, 64))
    data = Data("random", split, split, split, ("a", "b", "c"), Preprocess())

    fit(model, data, epochs=3, lr=0.5, optimizer="adam", progress=False, callbacks=[ClipLatent()])

    latent, scaled = (formats.parts_of(model, name)[0].detach() for name in ("1.weight", "2.weight"))
    assert float(latent.abs().max()) == 1
    assert float(scaled.abs().max()) <= glorot(scaled.shape) * (1 + 1e-6)


def test_multi_sign_adds_thresholded_signs_with_the_gradients_of_the_paper():
    module = MultiSign(3)
    x = torch.linspace(-1.5, 2, 36, dtype=torch.float32).requires_grad_(True)

    out = module(x)
    out.sum().backward()

    v, beta, values = module.shift.detach(), module.beta.detach(), x.detach()
    by_hand = sum(b * torch.where(values + s >= 0.5, 1.0, -1.0) for b, s in zip(beta, v, strict=True))
    slope = sum(b * ((values + s >= 0) & (values + s <= 1)).float() for b, s in zip(beta, v, strict=True))
    assert torch.allclose(out, by_hand)
    assert torch.allclose(x.grad, slope, atol=1e-6)
    assert module.beta.grad.tolist() == pytest.approx(
        [float(torch.where(values + s >= 0.5, 1.0, -1.0).sum()) for s in v]
    )


def test_thresholds_of_multi_sign_cut_positive_normal_values_into_equal_parts():
    module = MultiSign(4)
    x = normal(200_000).abs()

    above = [float((x + shift >= 0.5).float().mean()) for shift in module.shift.detach()]

    assert above == pytest.approx([0.875, 0.625, 0.375, 0.125], abs=0.01)


@pytest.mark.parametrize("make", [lambda: Sign("relu"), lambda: MultiSign(0), lambda: TTQ(threshold=1.0)])
def test_wrong_options_are_refused(make):
    with pytest.raises(OptionError):
        make()
