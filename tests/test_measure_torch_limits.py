"""What cannot be counted is said: wrong examples, control flow on values, operators without a rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gossamer.blocks.affine import Affine
from gossamer.cost import Cost, Costed
from gossamer.errors import MeasureError, ModelError, OptionError
from gossamer.measure.profile import profile

LIBRARY = torch.library.Library("gossamer_test", "DEF")
LIBRARY.define("pairs(Tensor left, Tensor right) -> Tensor")
LIBRARY.impl("pairs", lambda left, right: left @ right, "CompositeExplicitAutograd")
LIBRARY.impl("pairs", lambda left, right: left.new_empty(left.shape[0], right.shape[1]), "Meta")
LIBRARY.define("hidden(Tensor x) -> Tensor")
LIBRARY.impl("hidden", lambda x: x.clone(), "CPU")  # no implementation without values


class Calls(nn.Module):
    """A forward made of a function; keyword arguments become attributes (layers, parameters)."""

    def __init__(self, function, **held):
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, *tensors):
        return self.function(self, *tensors)


def pairs(self, x, y):
    return self.layer(torch.ops.gossamer_test.pairs(x, y))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_wrong_shape_names_the_layer_and_both_shapes(device, caplog):
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 3)).to(device)

    with pytest.raises(ModelError) as caught:
        profile(model, torch.zeros(1, 4))

    message = str(caught.value)
    assert "float32 [1, 4]" in message
    assert "layer '2' = Linear(in_features=6, out_features=3" in message
    assert ("1x5 and 6x3" if device == "cpu" else "[1, 5] X [6, 3]") in message
    assert caplog.text == ""


def test_a_missing_input_is_named():
    with pytest.raises(ModelError, match="missing 1 required positional argument: 'input2'"):
        profile(nn.Bilinear(2, 3, 4), torch.zeros(1, 2))


def test_too_many_inputs_are_refused():
    with pytest.raises(ModelError, match="2 tensors, but forward takes 1"):
        profile(nn.Linear(2, 3), (torch.zeros(1, 2), torch.zeros(1, 2)))


def test_an_example_is_needed():
    with pytest.raises(OptionError, match="needs an example"):
        profile(nn.Linear(2, 3))


def test_only_modules_are_taken():
    with pytest.raises(ModelError, match=r"received function, expected a torch.nn.Module"):
        profile(lambda x: x, torch.zeros(1))


BRANCHING = {
    "a condition": lambda self, x: self.layer(x) if x.sum() > 0 else self.layer(self.layer(x)),
    "a selection": lambda self, x: self.layer(x[x[:, 0] > 0]),
    "a list": lambda self, x: self.layer(x) * len(x.tolist()),
    "numpy": lambda self, x: self.layer(torch.from_numpy(x.numpy())),
    "an operator that needs values": lambda self, x: self.layer(torch.ops.gossamer_test.hidden(x)),
}


@pytest.mark.parametrize("name", BRANCHING)
def test_a_forward_that_depends_on_values_is_counted_on_the_values_of_the_example(name):
    model = Calls(BRANCHING[name], layer=nn.Linear(4, 4))
    example = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [-1.0, 0, 0, 0]])

    found = profile(model, example)

    assert found.macs == (2 if name == "a selection" else 3) * 16
    assert len(found.notes) == 1
    assert found.notes[0].startswith("counted on the values of this example")


@pytest.mark.parametrize("name", ["a condition", "a selection", "a list", "numpy"])
def test_without_weights_it_cannot_be_counted_and_says_why(name):
    model = Calls(BRANCHING[name], layer=nn.Linear(4, 4, device="meta"))

    with pytest.raises(MeasureError, match=r"depends on values .* Load the model with weights on the CPU"):
        profile(model, torch.zeros(3, 4))


NO_RULE = {  # forward, operator, bytes of its outputs for an input [2, 4, 4]
    "fourier transform": (lambda self, x: torch.fft.fft2(x).real, "aten._fft_c2c", 2 * 16 * 8),
    "inverse": (lambda self, x: torch.linalg.inv(x), "aten.linalg_inv_ex", 2 * 16 * 4 + 2 * 4),
    "sort": (lambda self, x: torch.sort(x)[0], "aten.sort", 2 * 16 * (4 + 8)),
}


@pytest.mark.parametrize("name", NO_RULE)
def test_an_operator_without_a_rule_is_listed_with_its_bytes(name):
    forward, op, size = NO_RULE[name]
    model = Calls(lambda self, x: forward(self, x) + forward(self, x))

    found = profile(model, torch.eye(4).repeat(2, 1, 1))

    assert [(item.op, item.calls, item.output_bytes) for item in found.uncounted] == [(op, 2, 2 * size)]


def test_an_operator_of_another_library_is_listed_until_its_cost_is_given():
    model = Calls(pairs, layer=nn.Linear(5, 2))
    example = (torch.zeros(3, 4), torch.zeros(4, 5))

    silent = profile(model, example)
    told = profile(
        model,
        example,
        costs={"gossamer_test::pairs": lambda left, right: Cost.of_macs(left.numel() * right.shape[1])},
    )

    assert [(item.op, item.calls, item.output_bytes) for item in silent.uncounted] == [
        ("gossamer_test.pairs", 1, 60)
    ]
    assert silent.macs == 30
    assert told.uncounted == ()
    assert told.macs == 60 + 30
    assert told.total.cost.traffic_bytes > silent.total.cost.traffic_bytes


def test_a_cost_may_replace_a_rule_of_torch():
    found = profile(nn.ReLU(), torch.zeros(3, 4), costs={"aten::relu": lambda x: Cost(shifts=x.numel())})

    assert found.total.cost.shifts == 12
    assert found.other_ops == {}


def test_a_cost_that_is_never_needed_is_noted():
    found = profile(nn.ReLU(), torch.zeros(3, 4), costs={"mylib::op": lambda x: Cost()})

    assert found.notes == ("costs['mylib::op']: this operator was not called",)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda left: Cost(), "failed in layer ''.*takes 1 positional argument but 2 were given"),
        (lambda left, right: 60, "returned int, expected a gossamer.cost.Cost"),
    ],
)
def test_a_cost_that_fails_is_blamed_itself(cost, message):
    with pytest.raises(MeasureError, match=message):
        profile(
            Calls(pairs, layer=nn.Linear(5, 2)),
            (torch.zeros(3, 4), torch.zeros(4, 5)),
            costs={"gossamer_test::pairs": cost},
        )


def test_the_name_of_an_operator_has_a_library():
    with pytest.raises(OptionError, match="expected the name of an operator such as 'mylib::op'"):
        profile(nn.ReLU(), torch.zeros(1), costs={"relu": lambda x: Cost()})


class Shift(nn.Module, Costed):
    """Multiplies by powers of two; in torch a product, on a chip a shift."""

    def __init__(self, channels):
        super().__init__()
        self.inner = Affine(channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x, *, times=None):
        return self.inner(x) * self.scale[:, None] * (1 if times is None else times)

    def cost(self, *input_shapes):
        return Cost(shifts=sum(a * b * c for a, b, c in input_shapes))


def test_a_layer_with_its_own_cost_hides_the_operators_inside_but_not_their_memory():
    found = profile(nn.Sequential(nn.ReLU(), Shift(3)), torch.zeros(2, 3, 4))

    assert found.total.cost.shifts == 24
    assert found.other_ops == {"compare": 24}
    assert sum(row.params for row in found.rows) == 9
    assert sum(bool(operation.cost.shifts) for operation in found.schedule.operations) == 1
    assert found.peak_activation_bytes >= 2 * 24 * 4


def test_a_layer_with_its_own_cost_sees_its_named_inputs():
    model = Calls(lambda self, x: self.shift(x, times=x), shift=Shift(3))

    assert profile(model, torch.zeros(2, 3, 4)).total.cost.shifts == 48


def test_a_sparse_weight_is_refused_with_a_remedy():
    model = Calls(lambda self, x: torch.sparse.mm(self.w, x), w=nn.Parameter(torch.eye(4).to_sparse()))

    with pytest.raises(MeasureError, match=r"layout torch.sparse_coo.*to_dense\(\)"):
        profile(model, torch.zeros(4, 2))


def test_a_sparse_activation_is_refused_too():
    model = Calls(lambda self, x: torch.sparse.mm(x.to_sparse(), x))

    with pytest.raises(MeasureError, match=r"layout torch.sparse_coo"):
        profile(model, torch.eye(4))


def test_a_lazy_layer_is_not_given_its_shape_by_counting():
    model = nn.Sequential(nn.LazyLinear(5))

    with pytest.raises(ModelError, match=r"0.weight has no shape yet. Call the model once"):
        profile(model, torch.zeros(1, 4))

    assert isinstance(model[0], nn.LazyLinear)


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
def test_a_torchscript_module_is_refused():
    with pytest.raises(ModelError, match="TorchScript"):
        profile(torch.jit.script(nn.Linear(4, 5)), torch.zeros(1, 4))
