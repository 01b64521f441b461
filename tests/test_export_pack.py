"""pack as a caller sees it: examples, metadata, an untouched model, and errors that say what to do."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from exporter_cache import operators_read_once  # noqa: F401  # a fixture
from gossamer import formats, runtime
from gossamer.errors import ExportError, ModelError, OptionError
from gossamer.export import pack


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, left, right=None):
        return self.linear(left if right is None else left + right)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2, self.drop = nn.Linear(800, 500), nn.Linear(500, 10), nn.Dropout()

    def forward(self, x):
        x = torch.max_pool2d(self.conv1(x), 2)
        x = torch.max_pool2d(self.conv2(x), 2)
        return self.fc2(self.drop(torch.relu(self.fc1(x.flatten(1)))))


def test_header_and_graph_of_lenet5_take_less_than_400_bytes(tmp_path):
    packed = pack(LeNet5(), tmp_path / "m.goss", torch.randn(2, 1, 28, 28))

    assert packed.size_bytes - 431080 * 4 < 400


@pytest.mark.parametrize("attached", [False, True])
def test_the_model_is_left_as_it_was(attached, tmp_path):
    model = small()
    model[1].eval()
    if attached:
        formats.attach(model[0], "weight", formats.Uniform(bits=3))
        formats.attach(model[3], "weight", formats.Sparse(values=formats.Codebook(bits=2)))
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    model.train()
    model[1].eval()
    model(torch.randn(4, 6)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()

    pack(model, tmp_path / "m.goss", torch.randn(2, 6, generator=torch.Generator().manual_seed(0)))

    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, two) for one, two in zip(after, gradients, strict=True))
    assert len(model._forward_hooks) == 1
    assert model(torch.randn(4, 6)).shape == (4, 3)


@pytest.mark.parametrize("kind", [torch.float32, np.float32, np.float64])
def test_an_example_may_be_a_tensor_or_an_array(kind, tmp_path):
    values = (
        torch.randn(2, 6) if isinstance(kind, torch.dtype) else np.random.default_rng(0).normal(size=(2, 6))
    )
    example = values if isinstance(kind, torch.dtype) else values.astype(kind)

    packed = pack(small(), tmp_path / "m.goss", example)

    assert runtime.open(packed.path).inputs[0].dtype == "float32"


def test_a_dict_is_taken_as_keyword_arguments_and_names_the_inputs(tmp_path):
    model = Pair()
    left, right = torch.randn(2, 4), torch.randn(2, 4)

    session = runtime.open(pack(model, tmp_path / "m.goss", {"left": left, "right": right}).path)

    assert [port.name for port in session.inputs] == ["left", "right"]
    got = session({"right": right.numpy(), "left": left.numpy()})
    np.testing.assert_allclose(got, model(left, right).detach().numpy(), atol=1e-5)


def test_an_argument_with_a_default_may_be_left_out(tmp_path):
    session = runtime.open(pack(Pair(), tmp_path / "m.goss", torch.randn(2, 4)).path)

    assert [port.name for port in session.inputs] == ["left"]


def test_forward_may_take_any_number_of_inputs(tmp_path):
    class Sum(nn.Module):
        def forward(self, *values):
            return sum(values) * 2

    session = runtime.open(pack(Sum(), tmp_path / "m.goss", (torch.randn(2, 4), torch.randn(2, 4))).path)

    assert [str(port) for port in session.inputs] == [f"input{at}: float32 [batch, 4]" for at in range(2)]


def test_inputs_and_outputs_can_be_named(tmp_path):
    packed = pack(
        small(), tmp_path / "m.goss", torch.randn(2, 6), input_names=["image"], output_names=["logits"]
    )
    session = runtime.open(packed.path)

    assert (session.inputs[0].name, session.outputs[0].name) == ("image", "logits")


def test_nested_outputs_are_named_by_their_path(tmp_path):
    class Nested(nn.Module):
        def forward(self, x):
            return {"a": (x + 1, x * 2), "b": [x.sum(1)]}

    session = runtime.open(pack(Nested(), tmp_path / "m.goss", torch.randn(2, 4)).path)

    assert [port.name for port in session.outputs] == ["a.0", "a.1", "b.0"]


def test_a_model_that_returns_its_input_can_be_packed(tmp_path):
    class Echo(nn.Module):
        def forward(self, x):
            return x, x + 1, x

    x = np.ones((3, 2), np.float32)
    got = runtime.open(pack(Echo(), tmp_path / "m.goss", torch.randn(2, 2)).path)(x)

    assert isinstance(got, dict)
    assert [value[0, 0] for value in got.values()] == [1, 2, 1]


def test_metadata_preprocessing_and_labels_come_back(tmp_path):
    @dataclass
    class Preprocess:
        mean: float

        def to_dict(self):
            return {"mean": self.mean}

    packed = pack(
        small(), tmp_path / "m.goss", torch.randn(2, 6), metadata={"recipe": ["prune"]},
        preprocess=Preprocess(0.5), labels=["a", "b", "c"],
    )  # fmt: skip
    session = runtime.open(packed.path)

    assert session.metadata["recipe"] == ["prune"]
    assert session.preprocess == {"mean": 0.5}
    assert session.labels == ["a", "b", "c"]


def test_a_batch_that_cannot_be_free_is_fixed_and_noted(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(4, 3) * 2

    packed = pack(Fixed(), tmp_path / "m.goss", torch.randn(2, 6))
    session = runtime.open(packed.path)

    assert session.inputs[0].shape == (2, 6)
    assert packed.notes[0].startswith("the batch is fixed at 2, because")
    assert session.notes == list(packed.notes)


def test_a_fixed_batch_can_be_asked_for(tmp_path):
    packed = pack(small(), tmp_path / "m.goss", torch.randn(2, 6), dynamic_batch=False)

    assert runtime.open(packed.path).inputs[0].shape == (2, 6)
    assert packed.notes == ()


def test_an_example_of_one_leaves_the_batch_free(tmp_path):
    session = runtime.open(pack(small(), tmp_path / "m.goss", torch.randn(1, 6)).path)

    assert session(np.ones((5, 6), np.float32)).shape == (5, 3)


def test_an_example_of_the_wrong_shape_names_the_layer_and_the_shapes(tmp_path):
    message = r"example \(input: float32 \[2, 7\]\): layer '0' = Linear\(in_features=6, out_features=8.*2x7"
    with pytest.raises(ModelError, match=message):
        pack(small(), tmp_path / "m.goss", torch.randn(2, 7))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("photo.jpg", r"example\[0\]: received str, expected a tensor"),
        (np.array(["a"]), r"example\[0\]: an array of <U1 cannot be an input"),
        ((), "the example is empty"),
        ((torch.randn(2, 6), torch.randn(2, 6)), r"has 2 tensors, but forward takes 1 \(input\)"),
    ],
)
def test_an_example_that_is_no_call_is_refused(example, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        pack(small(), tmp_path / "m.goss", example)


def test_nan_weights_are_named(tmp_path):
    model = small()
    with torch.no_grad():
        model[3].weight[1, 2] = float("nan")

    with pytest.raises(ModelError, match=r"3\.weight: 1 of 24 values are NaN"):
        pack(model, tmp_path / "m.goss", torch.randn(2, 6))


def test_control_flow_that_depends_on_values_names_the_line(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x + 1
            return x - 1

    with pytest.raises(
        ExportError, match=r"line \d+ of test_export_pack\.py: if x\.sum\(\) > 0:.*torch\.where"
    ):
        pack(Branching(), tmp_path / "m.goss", torch.randn(2, 6))


def test_an_operator_that_onnx_lacks_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvalsh(x @ x.T)

    with pytest.raises(ExportError, match=r"eigh.*rewrite the line"):
        pack(Odd(), tmp_path / "m.goss", torch.randn(3, 3))


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), ("text", "str")])
def test_an_output_that_is_no_tensor_is_named(value, kind, tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return {"logits": x, "extra": value}

    with pytest.raises(ExportError, match=f"output 'extra' is {kind}, but a graph returns tensors"):
        pack(Odd(), tmp_path / "m.goss", torch.randn(2, 2))


def test_a_model_that_is_random_in_eval_mode_leaves_no_file(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    with pytest.raises(ExportError, match=r"output 'output' of the file differs .* random numbers"):
        pack(Noisy(), tmp_path / "m.goss", torch.randn(2, 2))

    assert list(tmp_path.iterdir()) == []


def test_a_failed_pack_keeps_the_file_that_was_there(tmp_path):
    target = tmp_path / "m.goss"
    target.write_bytes(b"before")
    model = small()
    with torch.no_grad():
        model[0].bias[0] = float("nan")

    with pytest.raises(ModelError):
        pack(model, target, torch.randn(2, 6))

    assert target.read_bytes() == b"before"


def test_wrong_options_are_refused(tmp_path):
    x = torch.randn(2, 6)

    with pytest.raises(ExportError, match="does not exist"):
        pack(small(), tmp_path / "nowhere" / "m.goss", x)
    with pytest.raises(OptionError, match="'labels' is written by pack itself"):
        pack(small(), tmp_path / "m.goss", x, metadata={"labels": []})
    with pytest.raises(OptionError, match="preprocess is int"):
        pack(small(), tmp_path / "m.goss", x, preprocess=3)
    with pytest.raises(ModelError, match="must give 1 different names"):
        pack(small(), tmp_path / "m.goss", x, input_names=["a", "b"])
    with pytest.raises(ExportError, match="must give 1 different names"):
        pack(small(), tmp_path / "m.goss", x, output_names=[])
