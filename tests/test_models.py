"""The built-in networks are those of the papers, and the public weights score what their authors report."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gossamer.data import Preprocess, load_data
from gossamer.errors import ModelError
from gossamer.models import LeNet5, LeNet300, ResNetCifar, load_model
from gossamer.training import evaluate


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other on a busy machine are many times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PARAMETERS = {
    "lenet300": 266_610,
    "lenet-300-100": 266_610,
    "lenet5": 431_080,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "mlp-mnist": 784 * 1024 + 2 * 1024 * 1024 + 1024 * 10 + 2 * (3 * 1024 + 10),
    "mlp-mnist-wide": 784 * 2048 + 2 * 2048 * 2048 + 2048 * 10 + 2 * (3 * 2048 + 10),
    "mobilenet-small": 151_770,  # counted by hand from the table of blocks
    "vgg-small": 4_660_106,
    "vgg-small-pool-first": 4_660_106,
    "vgg-tiny": 9 * (16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * 224 + (64 * 9 + 1) * 10,
    "vgg-tiny-pool-first": 77_786,
}


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_a_built_in_network_has_the_published_number_of_parameters(name, count):
    model = load_model(name)
    shape = (2, *model.input_shape[1:])

    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model(torch.zeros(shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "weights", "data", "preprocess", "correct"),
    [
        ("lenet300", "lenet300_100_mnist", "mnist", None, 9395),
        ("lenet5", "lenet5_caffe_mnist", "mnist", Preprocess(scale=1 / 255, color="L"), 9906),
        pytest.param("resnet20", "resnet20_cifar10", "cifar10", None, 9173, marks=pytest.mark.slow),
        pytest.param("resnet32", "resnet32_cifar10", "cifar10", None, 9263, marks=pytest.mark.slow),
    ],
)
def test_public_weights_score_what_their_author_reports(name, weights, data, preprocess, correct):
    data = load_data(data)

    score = evaluate(load_model(name, weights), data.test, preprocess or data.preprocess)

    assert score.correct == correct
    assert score.total == 10_000


def test_the_first_thousand_cifar_images_are_classified_by_the_public_resnet():
    data = load_data("cifar10")

    score = evaluate(load_model("resnet20", "resnet20_cifar10"), data.test.subset(1000), data.preprocess)

    assert 0.90 <= score.accuracy <= 0.935  # 91.73 % on all 10,000; one standard error of 1,000 is 0.9 points


def test_the_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides():
    block = ResNetCifar(3).layer2[0].eval()
    with torch.no_grad():
        block.bn2.weight.zero_()
        block.bn2.bias.zero_()
    x = torch.rand(2, 16, 8, 8)

    y = block(x)

    assert (y[:, 8:24] == x[:, :, ::2, ::2]).all()
    assert (y[:, :8] == 0).all()
    assert (y[:, 24:] == 0).all()


def test_lenet300_takes_pictures_and_vectors_alike():
    model = load_model("lenet300")
    x = torch.rand(3, 1, 28, 28)

    assert (model(x) == model(x.flatten(1))).all()


def test_fresh_weights_depend_on_the_seed_alone_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = load_model("lenet5", seed=1), load_model("lenet5", seed=1), load_model("lenet5", seed=2)

    assert (torch.rand(3) == expected).all()
    assert all((a == b).all() for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert (one.conv1.weight != other.conv1.weight).any()
    assert not one.training


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_saved_by_torch_load_with_wrappers_and_prefixes(wrapper, prefix, tmp_path):
    wanted = LeNet300().state_dict()
    content = {prefix + key: value for key, value in wanted.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "weights.pt")

    loaded = load_model("lenet300", tmp_path / "weights.pt").state_dict()

    assert all((loaded[key] == value).all() for key, value in wanted.items())


def test_half_precision_weights_are_widened(tmp_path):
    wanted = {key: value.half() for key, value in LeNet5().state_dict().items()}
    save_file(wanted, tmp_path / "half.safetensors")

    loaded = load_model("lenet5", tmp_path / "half.safetensors")

    assert loaded.conv1.weight.dtype == torch.float32
    assert (loaded.conv1.weight == wanted["conv1.weight"].float()).all()


def test_models_come_from_functions_classes_and_files(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(3, 2)\n"
        "def make(): return Net()\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)

    by_class, by_module = load_model("my_nets.py:Net", seed=4), load_model("my_nets:make", seed=4)

    assert by_class.weight.shape == (2, 3)
    assert (by_class.weight == by_module.weight).all()
    assert load_model(by_class) is by_class


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnt20", "unknown name 'resnt20'. Did you mean 'resnet20'"),
        ("nets.py:make", "there is no file 'nets.py'"),
        ("mine.py:maek", "has no 'maek'. Did you mean 'make'"),
        ("mine.py:number", "is int, expected a function or class"),
        ("mine.py:make", "returned dict, expected a torch.nn.Module"),
        ("mine.py:wants", r"failed when called without arguments \(TypeError"),
    ],
)
def test_what_is_wrong_with_a_model_name_is_said(spec, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("number = 3\ndef make(): return {}\ndef wants(width): ...\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_missing_unexpected_and_misshapen_weights_are_all_listed(tmp_path):
    state = LeNet5().state_dict()
    state["conv1.wieght"] = state.pop("conv1.weight")
    state["ip2.bias"] = torch.zeros(11)
    save_file(state, tmp_path / "other.safetensors")

    with pytest.raises(ModelError) as caught:
        load_model("lenet5", tmp_path / "other.safetensors")

    message = str(caught.value)
    assert "missing conv1.weight (Did you mean 'conv1.wieght'?)" in message
    assert "unexpected conv1.wieght" in message
    assert "ip2.bias is (11,), expected (10,)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    state = LeNet300().state_dict()
    state["fc2.weight"][3, 4] = value
    save_file(state, tmp_path / "bad.safetensors")

    with pytest.raises(ModelError, match=r"bad\.safetensors: fc2\.weight holds NaN or infinity"):
        load_model("lenet300", tmp_path / "bad.safetensors")


def test_files_that_are_not_weights_are_named(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    torch.save(LeNet5(), tmp_path / "pickled.pt")
    torch.save([1, 2], tmp_path / "list.pt")

    for name, message in (
        ("junk.pt", "cannot be read as weights alone"),
        ("junk.safetensors", "cannot be read as safetensors"),
        ("pickled.pt", r"cannot be read as weights alone.*Save model.state_dict\(\)"),
        ("list.pt", "holds list, expected a state_dict"),
        ("absent.pt", "there is no file"),
    ):
        with pytest.raises(ModelError, match=message):
            load_model("lenet5", tmp_path / name)
    with pytest.raises(ModelError, match="Did you mean 'resnet20_cifar10'"):
        load_model("resnet20", "resnet20_cifar")


def test_a_model_with_missing_norm_counters_still_loads(tmp_path):
    model = nn.BatchNorm1d(3)
    state = {key: value for key, value in model.state_dict().items() if key != "num_batches_tracked"}
    save_file(state, tmp_path / "norm.safetensors")

    assert load_model(model, tmp_path / "norm.safetensors") is model


def test_evaluation_is_the_same_for_any_batch_size():
    data = load_data("digits")
    model = load_model("lenet300", "lenet300_100_mnist")
    scores = [evaluate(model, data.test, data.preprocess, batch_size=size) for size in (7, 500, 5000)]

    assert len({score.correct for score in scores}) == 1
    assert max(abs(score.loss - scores[0].loss) for score in scores) < 1e-5
    assert dataclasses.asdict(scores[0])["total"] == 2000
