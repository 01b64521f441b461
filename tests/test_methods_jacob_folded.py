"""Folded training blocks: a convolution and its norm trained as one layer, against torch's own two."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gossamer import formats, quantizers
from gossamer.artifact.layouts import rebuild
from gossamer.data import load_data
from gossamer.errors import ModelError, OptionError, TrainingError
from gossamer.formats import Uniform
from gossamer.methods import jacob
from gossamer.methods.jacob import CurrentRange, FoldedLayer
from gossamer.methods.norm_pairs import norm_pairs
from gossamer.models import load_model
from gossamer.quantizers import Affine, place, record
from gossamer.training import Checkpoint, fit
from gossamer.training.delayed_rounding import DelayedRounding

PAIRS = {
    "conv": (lambda: nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), lambda: nn.BatchNorm2d(6), (5, 3, 8, 8)),
    "conv with bias": (lambda: nn.Conv2d(3, 6, 3), lambda: nn.BatchNorm2d(6, momentum=0.3), (5, 3, 8, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), lambda: nn.BatchNorm2d(4, eps=0.1), (5, 4, 8, 8)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), lambda: nn.BatchNorm2d(4), (5, 3, 8, 8)),
    "no affine": (lambda: nn.Conv2d(3, 4, 1), lambda: nn.BatchNorm2d(4, affine=False), (5, 3, 4, 4)),
    "cumulative": (lambda: nn.Conv1d(3, 4, 3), lambda: nn.BatchNorm1d(4, momentum=None), (5, 3, 9)),
    "3d": (lambda: nn.Conv3d(2, 3, 2), lambda: nn.BatchNorm3d(3), (4, 2, 4, 4, 4)),
    "linear": (lambda: nn.Linear(7, 5), lambda: nn.BatchNorm1d(5), (9, 7)),
}  # fmt: skip


def pair(kind: str, seed: int = 0) -> tuple[nn.Module, nn.Module, Tensor]:
    """Layer, norm with statistics of its own, and an input; float64."""
    torch.manual_seed(seed)
    layer, norm, shape = PAIRS[kind][0](), PAIRS[kind][1](), PAIRS[kind][2]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    if norm.affine:
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        nn.init.normal_(norm.bias)
    return layer.double(), norm.double(), (1 + 2 * torch.randn(shape)).double()


def statistics(norm: nn.Module) -> list[Tensor]:
    return [norm.running_mean, norm.running_var, norm.num_batches_tracked.double()]


@pytest.mark.parametrize("kind", PAIRS)
def test_without_rounding_it_is_the_layer_and_the_norm_of_the_batch_with_their_gradients(kind):
    layer, norm, x = pair(kind)
    plain = nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm)).train()
    block = FoldedLayer(layer, norm).train()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    y, expected = block(ours), plain(theirs)
    direction = torch.randn_like(expected)
    y.backward(direction)
    expected.backward(direction)

    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9)
    pairs = zip([*layer.parameters(), *norm.parameters()], plain.parameters(), strict=True)
    for mine, reference in pairs:
        grad = torch.zeros_like(mine) if mine.grad is None else mine.grad  # a bias before a norm: no effect
        torch.testing.assert_close(grad, reference.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("correction", [True, False])
@pytest.mark.parametrize("kind", PAIRS)
def test_the_moving_averages_are_those_of_torch(kind, correction):
    layer, norm, x = pair(kind)
    plain = nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm)).train()
    block = FoldedLayer(layer, norm, format=Uniform(bits=4), correction=correction).train()

    for factor in (1.0, 3.0, 0.2):
        block(x * factor)
        plain(x * factor)

    for mine, reference in zip(statistics(norm), statistics(plain[1]), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", PAIRS)
def test_frozen_or_in_eval_mode_it_is_the_folded_layer_and_the_averages_stand_still(kind):
    layer, norm, x = pair(kind)
    plain = nn.Sequential(copy.deepcopy(layer), copy.deepcopy(norm)).eval()
    block, before = FoldedLayer(layer, norm), [value.clone() for value in statistics(norm)]

    evaluated = block.eval()(x)
    block.freeze()
    trained = block.train()(x)

    torch.testing.assert_close(evaluated, plain(x), rtol=1e-9, atol=1e-9)
    assert torch.equal(trained, evaluated)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(norm), strict=True))


def test_the_graph_of_the_paper_uses_the_moving_averages_while_they_move():
    layer, norm, x = pair("conv")
    block = FoldedLayer(layer, norm, correction=False).train()

    y = block(x)

    assert torch.equal(y, block.eval()(x))  # with the averages after this batch
    y.sum().backward()
    assert layer.weight.grad is not None


def test_what_is_rounded_is_the_weight_scaled_by_the_moving_average():
    layer, norm, x = pair("conv with bias")
    grid = Uniform(bits=3, granularity="channel")
    block = FoldedLayer(layer, norm, format=grid).train()
    reference = copy.deepcopy(block)

    y = block(x)

    z = layer._conv_forward(x, layer.weight, None)
    mean, var = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
    moving = (norm.running_var + norm.eps).sqrt()
    scaled = layer.weight * (norm.weight / moving)[:, None, None, None]
    step = scaled.abs().amax((1, 2, 3), keepdim=True).float() / 3
    rounded = (scaled.float() / step).round().clamp(-3, 3) * step
    sigma = (var + norm.eps).sqrt()
    expected = layer._conv_forward(x, rounded.double(), None) * (moving / sigma)[:, None, None]
    expected = expected + (norm.bias - norm.weight * mean / sigma)[:, None, None]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(y, FoldedLayer(reference.layer, reference.norm).train()(x), atol=1e-2)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_gradient_passes_the_rounding_also_at_the_largest_weight(granularity):
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    block = FoldedLayer(layer, norm, format=Uniform(bits=8, granularity=granularity)).eval()
    x = torch.randn(2, 3, 6, 6)

    block(x).square().sum().backward()
    rounded = layer.weight.grad.clone()
    block.format, layer.weight.grad = None, None
    block(x).square().sum().backward()

    torch.testing.assert_close(rounded, layer.weight.grad, rtol=0.1, atol=0.1 * float(rounded.abs().mean()))
    assert (rounded != 0).all()


def test_one_value_per_channel_cannot_be_normalized():
    block = FoldedLayer(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()

    with pytest.raises(TrainingError, match=r"\(1, 4\) has one value per channel.*larger batch"):
        block(torch.ones(1, 3))
    block.freeze()
    block(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
        (nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
    ],
)
def test_other_layers_are_refused(layer, norm):
    with pytest.raises(ModelError, match="keeps running statistics"):
        FoldedLayer(layer, norm)


class Net(nn.Module):
    """Two foldable pairs, a norm that follows a sum, and a layer without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.norm2 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.first(x)))
        x = torch.relu(self.norm2(x + self.second(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def trained_net(seed: int = 0) -> tuple[Net, Tensor]:
    """A network whose statistics have seen something."""
    torch.manual_seed(seed)
    net, x = Net(), torch.randn(6, 3, 10, 10)
    with torch.no_grad():
        for _ in range(3):
            net.train()(x)
    return net, x


def test_fold_finds_the_pairs_of_the_traced_graph_and_finish_makes_plain_layers_of_them():
    net, x = trained_net()
    before = net.eval()(x)

    pairs = jacob.fold(net, x, format=None)
    folded = net.eval()(x)
    names = jacob.finish(net)

    assert pairs == {"norm1": "first", "second.1": "second.0"}
    assert names == ["first", "second.0"]
    assert (type(net.first), type(net.norm1), type(net.norm2)) == (nn.Conv2d, nn.Identity, nn.BatchNorm2d)
    torch.testing.assert_close(folded, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(x), folded)
    assert not formats.attached(net)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_finish_keeps_the_function_exactly_and_leaves_the_format_on_the_folded_weight(granularity):
    net, x = trained_net()
    jacob.fold(net, x, format=Uniform(bits=8, granularity=granularity))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(3):
        net.train()(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = net.eval()(x)

    jacob.finish(net)

    assert torch.equal(net(x), trained)
    found = formats.attached(net)
    assert set(found) == {"first.weight", "second.0.weight"}
    for name in found:
        weight, scale = formats.plain_parameters(net)[name].detach(), formats.parts_of(net, name)[1]
        assert scale.numel() == (8 if granularity == "channel" else 1)
        ratio = weight / scale.reshape(-1, 1, 1, 1)
        torch.testing.assert_close(ratio, ratio.round(), rtol=0, atol=1e-4)
        assert int(ratio.abs().max().round()) == 127  # narrow range, and it reaches its end
    assert net.first.bias is not None


def test_every_norm_of_resnet20_folds_and_training_mode_is_that_of_the_plain_network():
    model = load_model("resnet20", seed=1)
    plain, x = copy.deepcopy(model).train(), torch.randn(4, 3, 32, 32)

    pairs = jacob.fold(model, x, format=None)

    assert len(pairs) == len(jacob.folded_layers(model)) == 19
    torch.testing.assert_close(model.train()(x), plain(x), rtol=1e-3, atol=1e-3)


def test_a_state_dict_gives_back_the_block_and_whether_it_is_frozen():
    net, x = trained_net()
    fresh, _ = trained_net(seed=7)
    pairs = jacob.fold(net, x)
    jacob.freeze(net)
    net.train()(3 * x)

    jacob.fold_pairs(fresh, pairs)
    fresh.load_state_dict(net.state_dict())

    assert all(bool(block.frozen) for block in jacob.folded_layers(fresh).values())
    assert torch.equal(fresh.eval()(x), net.eval()(x))
    assert torch.equal(fresh.train()(x), net.train()(x))


def test_what_cannot_be_folded_is_left_as_it_is_or_named():
    net, x = trained_net()
    formats.attach(net.first, "weight", Uniform(bits=8))

    assert jacob.fold(net, x) == {"second.1": "second.0"}
    with pytest.raises(ModelError, match=r"call jacob\.finish"):
        jacob.fold(net, x)
    jacob.finish(net)
    with pytest.raises(ModelError, match="fold found no convolution"):
        jacob.fold(net, x)
    with pytest.raises(ModelError, match="the model could not be traced"):
        jacob.fold(Net(), torch.ones(2, 5))


@pytest.mark.parametrize("fold_first", [True, False])
def test_quantizers_see_one_convolution_and_round_what_the_block_returns(fold_first):
    net, x = trained_net()
    if fold_first:
        jacob.fold(net, x, format=None)
    placement = place(record(net, (x,)))
    quantizers.attach(net, placement, lambda place: Affine())
    if not fold_first:
        jacob.fold(net, x, format=None)

    quantizers.set_state(net, "observe")
    net.eval()(x)
    for quantizer in quantizers.quantizers(net).values():
        quantizer.settle()
    net.train()(x).sum().backward()
    rounded = net.eval()(x)
    jacob.finish(net)

    assert len(placement.places) >= 4
    seen: list[Tensor] = []
    net.second[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert torch.equal(net(x), rounded)
    assert net.first.weight.grad is None  # a new parameter


class Small(nn.Module):
    """One pair and a linear layer, for digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = (
            nn.Conv2d(1, 4, 3, stride=3),
            nn.BatchNorm2d(4),
            nn.Linear(324, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(torch.relu(self.norm(self.conv(x))).flatten(1))
        return logits


def build_small(data) -> nn.Module:
    torch.manual_seed(0)
    net = Small()
    x = torch.from_numpy(data.preprocess(data.train.take(range(32))[0]))
    jacob.fold(net, x)
    quantizers.attach(net, place(record(net, (x,))), lambda place: Affine(momentum=0.01))
    quantizers.set_state(net, "observe")
    net.eval()(x)
    for quantizer in quantizers.quantizers(net).values():
        quantizer.settle()
    return net


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_rounding_starts_late_and_norms_freeze_at_the_end_also_after_a_resume(tmp_path, stop_after):
    data = load_data("digits")
    seen: list[tuple[str, bool]] = []

    class Spy(DelayedRounding):
        def on_step_end(self, model, optimizer):
            states = {quantizer.state for quantizer in quantizers.quantizers(model).values()}
            frozen = {bool(block.frozen) for block in jacob.folded_layers(model).values()}
            seen.append((states.pop(), frozen.pop()))
            super().on_step_end(model, optimizer)

    options = {"lr": 0.05, "batch_size": 50, "max_batches": 2, "progress": False}
    parts = {"delay": 3 / 8, "frozen": 1 / 8}  # of 8 steps: in the middle of the second and of the last epoch
    whole = build_small(data)
    fit(whole, data, epochs=4, callbacks=[Spy.over(8, **parts)], **options)

    assert seen == [("off", False)] * 3 + [("quantize", False)] * 4 + [("quantize", True)]

    class Stop(DelayedRounding):
        def on_epoch_end(self, epoch, model, history):
            if epoch == stop_after + 1:
                raise KeyboardInterrupt

    for kind, expected in ((Stop, KeyboardInterrupt), (DelayedRounding, None)):
        again = build_small(data)
        run = {
            "epochs": 4,
            "callbacks": [kind.over(8, **parts)],
            "checkpoint": Checkpoint(tmp_path / "c"),
        }
        if expected is None:
            fit(again, data, **run, **options)
        else:
            with pytest.raises(expected):
                fit(again, data, **run, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    for mine, reference in zip(again.buffers(), whole.buffers(), strict=True):
        assert torch.equal(mine, reference)


def test_ranges_follow_the_batches_while_activations_pass_as_floats():
    quantizer, x = Affine(momentum=0.25), torch.tensor([-1.0, 0.5, 3.0])
    quantizer.observe(x)
    quantizer.settle()
    quantizer.state = "off"

    passed = quantizer.train()(3 * x)
    quantizer.eval()(100 * x)
    grid = quantizer.grid()

    assert torch.equal(passed, 3 * x)
    assert quantizer.ends.tolist() == [-1.5, 4.5]  # -1 + (-3 + 1) / 4 and 3 + (9 - 3) / 4
    assert grid.high - grid.low == pytest.approx(6)


def test_a_current_range_reaches_the_largest_weight_at_every_use():
    torch.manual_seed(0)
    linear = nn.Linear(7, 5)
    formats.attach(linear, "weight", CurrentRange(bits=4, granularity="channel"))
    latent = linear.parametrizations.weight.original
    x = torch.randn(3, 7)

    linear(x).square().sum().backward()
    gradient = latent.grad.clone()
    with torch.no_grad():
        latent.mul_(10).add_(1)
    weight = linear.weight.detach()
    stored = rebuild(formats.stored(linear)["weight"])
    jacob.finish(linear)

    step = latent.detach().abs().amax(1, keepdim=True) / 7
    assert torch.allclose(weight, (latent.detach() / step).round() * step)
    assert (gradient != 0).all()  # also where a weight is the largest
    assert np.array_equal(stored, weight.numpy())
    assert formats.attached(linear)["weight"].format == Uniform(bits=4, granularity="channel")
    assert torch.equal(linear.weight, weight)


def test_a_schedule_that_cannot_be_is_refused():
    assert DelayedRounding.over(10) == DelayedRounding(quantize_from=2, freeze_from=7)
    assert DelayedRounding.over(1) == DelayedRounding(quantize_from=0, freeze_from=1)
    with pytest.raises(OptionError, match="expected steps from 0 on"):
        DelayedRounding(quantize_from=-1)
    with pytest.raises(OptionError, match=r"frozen is 1\.5, expected a part from 0 to 1"):
        DelayedRounding.over(10, frozen=1.5)


class Positions(nn.Module):
    """A linear layer of 8 features at 8 positions, and a norm that works on the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 8), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y


def test_a_norm_over_positions_is_no_pair_of_the_linear_layer_before_it():
    assert norm_pairs(Positions(), torch.ones(2, 8, 3)) == {}
    assert norm_pairs(Positions(), torch.ones(2, 3)) == {"norm": "linear"}
