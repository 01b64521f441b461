"""`load_model`: from a short text to a torch module, with weights when asked.

    lenet300 (lenet-300-100)  lenet5  resnet20  resnet32  resnet44  resnet56    built in
    mobilenet-small  squeezenet1_1  mlp-mnist  mlp-mnist-wide
    vgg-small  vgg-tiny  vgg-small-pool-first  vgg-tiny-pool-first
    module:function  file.py:function                                         yours; called without arguments
    file.onnx                                                                 read as a torch module (see `onnx`)

Weights are a .safetensors file, a file of `torch.load(weights_only=True)` (a state_dict, also inside
"state_dict", "model_state_dict" or "model"; a prefix "module." on every key is dropped), or the short name of
a file in the data folder's weights/. Names and shapes must fit exactly.
Raises: ModelError for an unknown name, a function that fails or returns no module, a file that cannot be
read, keys that are missing, unexpected or of another shape (all listed), and weights that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gossamer.data.imported import import_name
from gossamer.data.root import find_root
from gossamer.errors import ModelError, nearest
from gossamer.models.lenet import LeNet5, LeNet300
from gossamer.models.mnist_mlp import MnistMLP
from gossamer.models.mobilenet_small import MobileNetSmall
from gossamer.models.onnx import from_onnx
from gossamer.models.resnet_cifar import ResNetCifar
from gossamer.models.squeezenet import SqueezeNet
from gossamer.models.vgg_small import TINY, VGGSmall

NAMES: dict[str, Callable[[], nn.Module]] = {
    "lenet300": LeNet300,
    "lenet-300-100": LeNet300,
    "lenet5": LeNet5,
    "resnet20": partial(ResNetCifar, 3),
    "resnet32": partial(ResNetCifar, 5),
    "resnet44": partial(ResNetCifar, 7),
    "resnet56": partial(ResNetCifar, 9),
    "mlp-mnist": MnistMLP,
    "mlp-mnist-wide": partial(MnistMLP, width=2048, activation=nn.ReLU),
    "mobilenet-small": MobileNetSmall,
    "squeezenet1_1": SqueezeNet,
    "vgg-small": VGGSmall,
    "vgg-small-pool-first": partial(VGGSmall, pool_first=True),
    "vgg-tiny": partial(VGGSmall, widths=TINY, channels=1, side=28),
    "vgg-tiny-pool-first": partial(VGGSmall, widths=TINY, channels=1, side=28, pool_first=True),
}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 5


def load_model(spec: str | nn.Module, weights: str | Path | None = None, *, seed: int = 0) -> nn.Module:
    """The network that `spec` names, in evaluation mode; fresh weights are drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = spec if isinstance(spec, nn.Module) else _build(spec)
    if weights is not None:
        load_weights_(model, weights, name=str(spec) if isinstance(spec, str) else type(spec).__name__)
    return model.eval()


def load_weights_(model: nn.Module, weights: str | Path, *, name: str = "model") -> None:
    """Fill a module with a weight file; every key must fit."""
    path = _find(str(weights))
    given = _read(path)
    place = f"{name}: weights {path.name}"
    own = model.state_dict()
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    shapes = [key for key in given if key in own and given[key].shape != own[key].shape]
    problems = []
    if missing:
        near = f" ({nearest(missing[0], unexpected)})" if unexpected else ""
        problems.append(f"missing {_some(missing)}{near}")
    if unexpected:
        problems.append(f"unexpected {_some(unexpected)} ({nearest(unexpected[0], own)})")
    if shapes:
        listed = [f"{key} is {tuple(given[key].shape)}, expected {tuple(own[key].shape)}" for key in shapes]
        problems.append(f"other shapes: {_some(listed)}")
    if problems:
        raise ModelError(
            f"{place} do not fit: {'; '.join(problems)}. Use the network these weights were made for."
        )
    for key, value in given.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(
                f"{place}: {key} holds NaN or infinity, expected finite weights. Use another checkpoint."
            )
    model.load_state_dict({**own, **given})


def _build(spec: str) -> nn.Module:
    if spec in NAMES:
        return NAMES[spec]()
    if spec.endswith(".onnx"):
        return from_onnx(spec)
    if ":" not in spec:
        hint = nearest(spec, [*NAMES, "module:function", "file.py:function", "file.onnx"])
        raise ModelError(f"model: unknown name {spec!r}. {hint}")
    function = import_name(spec, error=ModelError)
    if not isinstance(function, nn.Module):
        if not callable(function):
            raise ModelError(
                f"{spec}: is {type(function).__name__}, expected a function or class that makes a module."
            )
        try:
            function = function()
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{spec}: failed when called without arguments ({type(error).__name__}: {error})."
            ) from error
    if not isinstance(function, nn.Module):
        raise ModelError(f"{spec}: returned {type(function).__name__}, expected a torch.nn.Module.")
    return function


def _find(weights: str) -> Path:
    path = Path(weights)
    if path.is_file():
        return path
    root = find_root()
    folder = root / "weights" if root else None
    known = sorted(p.stem for p in folder.glob("*.safetensors")) if folder else []
    if folder and weights in known:
        return folder / f"{weights}.safetensors"
    raise ModelError(
        f"weights: there is no file {weights!r}, and no shared weights of that name. "
        f"{nearest(weights, known)}"
    )


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path}: cannot be read as safetensors ({error}). Copy the file again."
            ) from error
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of torch meets a foreign file with errors of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path}: cannot be read as weights alone ({reason}). Save model.state_dict(), not the model."
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(
            f"{path}: holds {type(content).__name__}, expected a state_dict (names and tensors)."
        )
    if content and all(str(key).startswith("module.") for key in content):
        content = {str(key).removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _some(items: list[str]) -> str:
    rest = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + rest
