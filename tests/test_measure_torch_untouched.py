"""Counting changes nothing: not the model, not the random state, not torch; also after an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules import module as hooks_of_torch

from gossamer.errors import GossamerError
from gossamer.measure.profile import profile


class Restless(nn.Module):
    """Dropout, norms, hooks, a shared layer, caches and counters that a forward writes to."""

    def __init__(self, *, on_values=False, broken=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True))
        self.lstm = nn.LSTM(4, 4)
        self.head = nn.Linear(4, 4)
        self.again = self.head
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.register_buffer("seen", torch.zeros(()))
        self.cache = None
        self.history = []
        self.calls = 0
        self.on_values, self.broken = on_values, broken

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        y = self.body(x).flatten(2).mean(2)
        self.cache = y * 2
        self.history.append(self.cache)
        y, _ = self.lstm(y[None])
        y = self.again(self.head(y)) + torch.rand(4)
        y, _ = self.attention(y, y, y)
        if self.on_values and y.sum() > -1e9:
            y = y + 1
        if self.broken:
            raise RuntimeError("broken on purpose")
        return y


def state_of(model):
    return {
        "tensors": {
            name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()
        },
        "classes": {name: type(value) for name, value in model.named_parameters()},
        "gradients": {name: value.grad for name, value in model.named_parameters()},
        "trained": {name: value.requires_grad for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: (
                list(module._forward_hooks.items()),
                list(module._forward_pre_hooks.items()),
                list(module._backward_hooks.items()),
            )
            for name, module in model.named_modules()
        },
        "attributes": {name: list(vars(module)) for name, module in model.named_modules()},
        "flat": [id(value) for value in model.lstm._flat_weights],
        "own": (model.cache, list(model.history), model.calls),
    }


def of_torch():
    return {
        "random": torch.get_rng_state().tolist(),
        "hooks": (len(hooks_of_torch._global_forward_hooks), len(hooks_of_torch._global_forward_pre_hooks)),
        "with_kwargs": len(hooks_of_torch._global_forward_hooks_with_kwargs),
        "always": len(hooks_of_torch._global_forward_hooks_always_called),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
    }


def assert_same(model, before):
    after = state_of(model)
    tensors, found = before.pop("tensors"), after.pop("tensors")
    assert {name: place for name, (place, _) in tensors.items()} == {
        n: place for n, (place, _) in found.items()
    }
    for name, (_, value) in tensors.items():
        assert torch.equal(value, found[name][1]), name
    assert before == after


def prepared(**options):
    model = Restless(**options)
    model.body[1].eval()
    model.head.weight.requires_grad_(False)
    model.body[0].register_forward_hook(lambda module, args, output: None)
    return model


@pytest.mark.parametrize("on_values", [False, True])
def test_a_model_is_found_as_it_was(on_values):
    model, x = prepared(on_values=on_values), torch.ones(1, 3, 5, 5)
    before, torch_before = state_of(model), of_torch()

    found = profile(model, x)

    assert bool(found.notes) == on_values
    assert_same(model, before)
    assert of_torch() == torch_before
    assert torch.equal(x, torch.ones(1, 3, 5, 5))


@pytest.mark.parametrize("on_values", [False, True])
def test_a_model_that_raises_is_found_as_it_was(on_values):
    model = prepared(broken=True, on_values=on_values)
    before, torch_before = state_of(model), of_torch()

    with pytest.raises(GossamerError, match="broken on purpose"):
        profile(model, torch.ones(1, 3, 5, 5))

    assert_same(model, before)
    assert of_torch() == torch_before


def test_the_fast_path_stays_off_where_it_was_off():
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        profile(nn.Linear(2, 2), torch.zeros(1, 2))
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_model_runs_and_trains_after_it_was_counted():
    model = prepared().train()
    profile(model, torch.ones(1, 3, 5, 5))

    model(torch.ones(1, 3, 5, 5)).sum().backward()

    assert model.body[0].weight.grad is not None
    assert (model.calls, float(model.seen)) == (1, 1.0)


def test_counting_twice_gives_the_same():
    model = prepared()

    first, second = (profile(model, torch.ones(1, 3, 5, 5)).to_dict() for _ in range(2))

    assert first == second


def test_a_weight_that_forward_overwrites_keeps_its_value():
    class Clipping(nn.Linear):
        def forward(self, x):
            self.weight.data.clamp_(-0.01, 0.01)
            return super().forward(x) if x.sum() < 1e9 else x

    model = Clipping(4, 5)
    before = model.weight.clone()

    profile(model, torch.ones(1, 4))

    assert torch.equal(model.weight, before)
