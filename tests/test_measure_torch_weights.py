"""Parameters count once for each memory, operations once for each call; zeros, formats and folded norms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gossamer import formats
from gossamer.blocks.affine import Affine
from gossamer.measure.profile import profile


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Calls(nn.Module):
    """A forward made of a function; keyword arguments become attributes (layers, parameters)."""

    def __init__(self, function, **held):
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, *tensors, **named):
        return self.function(self, *tensors, **named)


def rows(found):
    return {row.name: row for row in found.rows}


def test_tied_weights_count_once_and_belong_to_the_layer_named_first():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight

    found = profile(model, torch.zeros(1, 3, dtype=torch.int64))

    assert found.params == 40
    assert found.macs == 3 * 40
    assert (rows(found)["0"].params, rows(found)["1"].params) == (40, 0)


def test_a_module_used_twice_costs_twice_and_is_stored_once():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)

    found = profile(model, drawn(1, 4))

    assert found.params == 20
    assert found.macs == 2 * 16
    assert rows(found)["0"].calls == 2
    assert isinstance(model[2].weight, nn.Parameter)
    assert model[2].weight.tolist() == shared.weight.tolist()


@pytest.mark.parametrize("order", ["abcd", "dcba", "cbda"])
def test_views_of_one_memory_count_every_element_once(order):
    whole = torch.arange(24.0).reshape(4, 6)
    views = {"a": whole, "b": whole.t(), "c": whole[:2], "d": whole[:, 1:3]}
    parameters = {name: nn.Parameter(views[name]) for name in order}
    model = Calls(lambda self, x: (x @ self.a) @ self.b + (x[:, :2] @ self.c) @ self.b, **parameters)

    found = profile(model, drawn(1, 4))

    assert found.params == 24
    assert found.total.nonzero == 23
    assert found.total.dense_bytes == 96
    assert found.macs == 24 + 24 + 12 + 24
    assert found.total.cost.macs_nonzero == 23 + 23 + 11 + 23


def test_halves_of_one_memory_count_as_their_sum():
    whole = torch.ones(4, 6)
    model = Calls(
        lambda self, x: x @ self.a + x @ self.b,
        a=nn.Parameter(whole[:, :3]),
        b=nn.Parameter(whole[:, 3:]),
    )

    assert profile(model, drawn(1, 4)).params == 24


def test_an_expanded_parameter_counts_what_is_stored():
    model = Calls(lambda self, x: x @ self.w, w=nn.Parameter(torch.ones(4, 1).expand(4, 6)))

    found = profile(model, drawn(1, 4))

    assert found.params == 4
    assert found.total.nonzero == 4
    assert found.macs == 24


def test_parameters_of_functional_calls_and_lists_are_known():
    weights = nn.ParameterList([nn.Parameter(drawn(4, 4)), nn.Parameter(drawn(4, 4))])
    model = Calls(
        lambda self, x: F.linear(x, self.w) @ self.more[0] @ self.more[1],
        w=nn.Parameter(drawn(4, 4)),
        more=weights,
    )

    found = profile(model, drawn(1, 4))

    assert found.params == 48
    assert found.macs == 48
    assert found.total.cost.weight_bytes == 4 * 48


def test_a_weight_that_no_module_registers_is_a_weight_all_the_same():
    model = Calls(lambda self, x: F.linear(x, self.w), w=drawn(5, 4))
    model.w[0] = 0

    cost = profile(model, drawn(1, 4)).total.cost

    assert (cost.macs, cost.macs_nonzero) == (20, 16)
    assert cost.weight_bytes == 80


def test_buffers_are_counted_apart():
    found = profile(nn.BatchNorm2d(6), drawn(1, 6, 3, 3))

    assert found.params == 12
    assert found.total.buffers == 2 * 6 + 1


def test_two_inputs_may_be_a_tuple_or_named():
    model = nn.Bilinear(2, 3, 4)
    one, two = drawn(1, 2), drawn(1, 3)

    by_place, by_name = profile(model, (one, two)), profile(model, {"input2": two, "input1": one})

    assert by_place.macs == by_name.macs == 24
    assert by_place.inputs == {"input1": ("float32", (1, 2)), "input2": ("float32", (1, 3))}


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.LSTM(3, 4), nn.BatchNorm2d(3)])
def test_a_model_on_the_meta_device_is_counted_without_values(layer):
    shape = (1, 3, 8, 8) if not isinstance(layer, nn.LSTM) else (5, 1, 3)
    reference = profile(layer, torch.zeros(shape))

    found = profile(layer.to("meta"), torch.zeros(shape, device="meta"))

    assert found.total.nonzero is None
    assert (found.macs, found.params, found.other_ops, found.flops) == (
        *(reference.macs, reference.params, reference.other_ops, reference.flops),
    )


def test_callers_in_inference_mode_get_the_same_counts():
    with torch.inference_mode():
        made_inside = profile(nn.LSTM(4, 5), drawn(2, 1, 4))

    assert made_inside.macs == profile(nn.LSTM(4, 5), drawn(2, 1, 4)).macs == 2 * 20 * 9
    assert made_inside.uncounted == ()


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_wrappers_of_torch_are_looked_through(wrap):
    found = profile(wrap(nn.Sequential(nn.Linear(4, 5))), drawn(1, 4))

    assert [(row.name, row.cost.macs) for row in found.rows] == [("0", 20)]


def test_a_compiled_layer_inside_is_not_compiled():
    model = nn.Sequential(torch.compile(nn.Linear(4, 5)))

    assert profile(model, drawn(1, 4)).macs == 20


def test_macs_of_zero_weights_are_exact():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    with torch.no_grad():
        layer.weight[drawn(6, 4, 3, 3) > 0.3] = 0
    kept = int(layer.weight.count_nonzero())

    cost = profile(layer, drawn(1, 4, 5, 5)).total.cost

    assert cost.macs == 25 * 216
    assert cost.macs_nonzero == 25 * kept


def test_a_slice_of_a_weight_has_its_own_zeros():
    layer = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        layer.weight[:, :3] = 0
    model = Calls(lambda self, x: F.linear(x, self.layer.weight[:, 2:]), layer=layer)

    cost = profile(model, drawn(1, 4)).total.cost

    assert (cost.macs, cost.macs_nonzero) == (16, 12)


def test_zeros_of_a_recurrent_weight_are_seen():
    layer = nn.LSTM(3, 4, bias=False)
    with torch.no_grad():
        layer.weight_ih_l0[:8] = 0
        layer.weight_hh_l0[:2] = 0

    cost = profile(layer, drawn(5, 2, 3)).total.cost

    assert cost.macs == 10 * 16 * 7
    assert cost.macs_nonzero == 10 * (8 * 3 + 14 * 4)


def test_a_weight_with_a_format_counts_as_the_dense_weight_it_decodes_to():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    plain = profile(model, drawn(1, 3, 8, 8))
    with torch.no_grad():
        model[0].weight[:2] = 0
    formats.attach(model[0], "weight", formats.Sparse())
    formats.attach(model[2], "weight", formats.Codebook(bits=2))

    found = profile(model, drawn(1, 3, 8, 8))

    assert (found.macs, found.params) == (plain.macs, plain.params)
    assert found.schedule.sizes == plain.schedule.sizes
    assert rows(found)["0"].cost.macs_nonzero == 36 * 2 * 27
    assert rows(found)["0"].nonzero == 2 * 27 + 4
    assert set(formats.attached(model)) == {"0.weight", "2.weight"}


def kinds(found):
    return {row.name: dict(row.cost.other_ops) for row in found.rows}


def test_a_norm_after_its_convolution_is_folded_into_a_bias():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    folded, plain = profile(model, drawn(1, 3, 6, 6)), profile(model, drawn(1, 3, 6, 6), folded=False)

    assert folded.norms_folded
    assert not plain.norms_folded
    assert folded.total.cost.bias_adds == 64
    assert kinds(folded)["1"] == {}
    assert kinds(plain)["1"] == {"add": 64, "multiply": 64}
    assert folded.params == plain.params == 108 + 8


def test_a_norm_before_its_convolution_stays_with_two_operations_per_element():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3))

    found = profile(model, drawn(1, 3, 6, 6))

    assert not found.norms_folded
    assert kinds(found)["0"] == {"add": 108, "multiply": 108}


def test_a_norm_whose_convolution_is_used_elsewhere_stays():
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y

    model = Calls(forward, conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4))

    found = profile(model, drawn(1, 3, 6, 6))

    assert kinds(found)["norm"] == {"add": 64, "multiply": 64}
    assert found.total.cost.bias_adds == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4)])
def test_a_norm_by_the_statistics_of_its_own_input_cannot_be_folded(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm)

    found = profile(model, drawn(1, 3, 6, 6))

    assert not found.norms_folded
    assert kinds(found)["1"]["add"] > 64


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Flatten(), nn.BatchNorm1d(48)), (1, 2, 6, 6)),
        (nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(3)), (2, 3, 4)),
    ],
)
def test_a_norm_over_other_axes_than_the_channels_before_it_cannot_be_folded(model, shape):
    found = profile(model, drawn(*shape))

    assert not found.norms_folded
    assert found.other_ops["multiply"] == found.total.output_bytes // 4


def test_a_norm_after_a_linear_layer_or_a_transposed_convolution_is_folded():
    linear = nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5))
    transposed = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, bias=False), nn.BatchNorm2d(3))

    assert profile(linear, drawn(2, 4)).total.cost.bias_adds == 10
    assert profile(transposed, drawn(1, 2, 6, 6)).total.cost.bias_adds == 192


def test_a_layer_that_knows_its_cost_is_asked_for_it():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Affine(4))

    found = profile(model, drawn(1, 3, 6, 6))

    affine = rows(found)["1"]
    assert dict(affine.cost.other_ops) == {"multiply": 64, "add": 64}
    assert (affine.params, affine.cost.weight_bytes, affine.cost.traffic_bytes) == (8, 32, 32 + 2 * 256)
    assert found.macs == 16 * 108
