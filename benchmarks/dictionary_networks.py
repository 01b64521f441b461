"""The networks whose heads train the dictionary of the .goss head; LeNet-5 and LeNet-300-100 are held out.

Hand-made families are drawn with a seed, so that the dictionary learns operators and habits rather than one
network; the zoo comes from pytorchcv. Weights are random: only graphs and shapes matter here.
"""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

ZOO = {  # module of pytorchcv.models -> network; one by one, as the whole provider needs torchvision
    "resnet": "resnet18",
    "resnet_cifar": "resnet20_cifar10",
    "preresnet_cifar": "preresnet20_cifar10",
    "seresnet_cifar": "seresnet20_cifar10",
    "mobilenet": "mobilenet_wd4",
    "mobilenetv2": "mobilenetv2_wd4",
    "mobilenetv3": "mobilenetv3_small_w1",
    "squeezenet": "squeezenet_v1_1",
    "shufflenetv2": "shufflenetv2_wd2",
    "densenet_cifar": "densenet40_k12_cifar10",
    "nin_cifar": "nin_cifar10",
    "efficientnet": "efficientnet_b0",
    "ghostnet": "ghostnet",
}
ACTIVATIONS = (nn.ReLU, nn.ReLU, nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid)


def mlp(rng: random.Random) -> tuple[nn.Module, Tensor]:
    side, classes = rng.choice([8, 14, 28]), rng.choice([2, 5, 10, 26])
    widths = [side * side, *(rng.choice([32, 64, 100, 128, 200, 256]) for _ in range(rng.randint(1, 3)))]
    activation = rng.choice(ACTIVATIONS)
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes)), torch.zeros(2, 1, side, side)


class Convolutional(nn.Module):
    """conv, (norm,) activation, pool, ... then one or two linear layers, with the names people give them."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.channels, self.side = rng.choice([(1, 28), (1, 32), (3, 32), (3, 64)])
        width, kernel = self.channels, rng.choice([3, 3, 5])
        pool, self.norm = rng.choice([nn.MaxPool2d, nn.AvgPool2d]), rng.random() < 0.4
        self.depth, self.activation, self.pool = rng.randint(1, 4), rng.choice(ACTIVATIONS)(), pool(2, 2)
        padding = rng.choice([0, kernel // 2]) if self.depth < 3 else kernel // 2
        for index in range(1, self.depth + 1):
            wider = rng.choice([8, 12, 16, 24, 32, 64])
            self.add_module(f"conv{index}", nn.Conv2d(width, wider, kernel, padding=padding))
            if self.norm:
                self.add_module(f"bn{index}", nn.BatchNorm2d(wider))
            width = wider
        self.whole = rng.random() < 0.3
        with torch.no_grad():
            flat = self.features(torch.zeros(2, self.channels, self.side, self.side)).shape[1]
        hidden, classes = rng.choice([64, 100, 128, 256]), rng.choice([2, 10, 100])
        self.fc1, self.fc2 = nn.Linear(flat, hidden), nn.Linear(hidden, classes)

    def features(self, x: Tensor) -> Tensor:
        for index in range(1, self.depth + 1):
            x = getattr(self, f"conv{index}")(x)
            if self.norm:
                x = getattr(self, f"bn{index}")(x)
            x = self.activation(x)
            if x.shape[-1] >= 4:
                x = self.pool(x)
        return x.mean((2, 3)) if self.whole else torch.flatten(x, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.features(x))))


def convolutional(rng: random.Random) -> tuple[nn.Module, Tensor]:
    net = Convolutional(rng)
    return net, torch.zeros(2, net.channels, net.side, net.side)


def separable(rng: random.Random) -> tuple[nn.Module, Tensor]:
    width = rng.choice([8, 16, 32])
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU6()]
    for _ in range(rng.randint(1, 3)):
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU6()]
        layers += [nn.Conv2d(width, 2 * width, 1), nn.BatchNorm2d(2 * width), nn.Hardswish()]
        width *= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)), torch.zeros(
        2, 3, 32, 32
    )


def super_resolution(rng: random.Random) -> tuple[nn.Module, Tensor]:
    factor, width = rng.choice([2, 3, 4]), rng.choice([16, 32, 64])
    net = nn.Sequential(
        nn.Conv2d(1, width, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(width, width // 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width // 2, factor**2, 3, padding=1),
        nn.PixelShuffle(factor),
    )
    return net, torch.zeros(2, 1, 24, 24)


def decoder(rng: random.Random) -> tuple[nn.Module, Tensor]:
    width = rng.choice([8, 16])
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )
    return net, torch.zeros(2, 3, 32, 32)


class Transformer(nn.Module):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        width, heads = rng.choice([(32, 2), (64, 4)])
        self.embed, self.position = nn.Linear(16, width), nn.Parameter(torch.zeros(1, 12, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, batch_first=True, activation=rng.choice(["relu", "gelu"])
        )
        self.encoder = nn.TransformerEncoder(layer, rng.randint(1, 2), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x) + self.position).mean(1))


def transformer(rng: random.Random) -> tuple[nn.Module, Tensor]:
    return Transformer(rng), torch.zeros(2, 12, 16)


class Recurrent(nn.Module):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        width = rng.choice([16, 32])
        self.rnn = rng.choice([nn.LSTM, nn.GRU])(13, width, batch_first=True)
        self.out = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def recurrent(rng: random.Random) -> tuple[nn.Module, Tensor]:
    return Recurrent(rng), torch.zeros(2, 20, 13)


FAMILIES: tuple[tuple[Callable[[random.Random], tuple[nn.Module, Tensor]], int], ...] = (
    (convolutional, 24),
    (mlp, 10),
    (separable, 6),
    (super_resolution, 3),
    (decoder, 2),
    (transformer, 3),
    (recurrent, 2),
)


def as_if_trained(net: nn.Module) -> nn.Module:
    """The net with distinct weights and statistics: equal constants would be merged in its graph."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.1 + torch.rand(value.shape, generator=generator) / 10)
    return net.eval()


def networks() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """(name, module, example input with a batch of two) of every network."""
    for family, count in FAMILIES:
        for seed in range(count):
            net, example = family(random.Random(seed))
            yield f"{family.__name__}-{seed}", as_if_trained(net), example
    for home, name in ZOO.items():
        net = getattr(importlib.import_module(f"pytorchcv.models.{home}"), name)()
        side = getattr(net, "in_size", (224, 224))
        yield name, as_if_trained(net), torch.zeros(2, 3, *side)


def held_out() -> tuple[str, nn.Module, Tensor]:
    """LeNet-5 of Caffe, 431,080 weights: never seen in training."""
    net = nn.Sequential()
    for name, layer in (
        ("conv1", nn.Conv2d(1, 20, 5)),
        ("pool1", nn.MaxPool2d(2, 2)),
        ("conv2", nn.Conv2d(20, 50, 5)),
        ("pool2", nn.MaxPool2d(2, 2)),
        ("flatten", nn.Flatten()),
        ("ip1", nn.Linear(800, 500)),
        ("relu", nn.ReLU()),
        ("ip2", nn.Linear(500, 10)),
    ):
        net.add_module(name, layer)
    return "lenet5", net, torch.zeros(2, 1, 28, 28)
