"""Parameters and multiply-accumulates of known networks, to the unit: the figures that torchvision publishes.

At 224 x 224 (Inception and Xception 299 x 299), batch 1, without auxiliary heads. torchvision's models are not at
hand; pytorchcv's stand for them where the layers are the same. They are not the same in three heads:

    MobileNetV2          the classifier has no bias: 1,000 parameters fewer
    MobileNetV3 large    the first linear layer of the head has no bias: 1,280 fewer
    MobileNetV3 small    the same, and it is 1,280 wide instead of 1,024: 402,432 more, 403,456 MACs more

These are compared as they are, by the difference, and with the head of torchvision in its place. pytorchcv has no
GoogLeNet, so that it is built here, with the 3x3 convolutions that torchvision has in the place of 5x5.
Its ResNets without the letter b, DenseNets of other sizes, ShuffleNetV2b, BN-Inception, ShuffleNetV1 of half width
and GhostNet are other networks, and are not compared.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn

from gossamer.measure.profile import profile
from gossamer.models import LeNet5, LeNet300, ResNetCifar, VGGSmall

pytest.importorskip("pytorchcv")

TORCHVISION = {  # module and network of pytorchcv -> parameters, MACs: torchvision's num_params and _ops
    ("alexnet", "alexnetb"): (61_100_840, 714_188_480),
    ("vgg", "vgg11"): (132_863_336, 7_609_090_048),
    ("vgg", "vgg16"): (138_357_544, 15_470_264_320),
    ("vgg", "vgg19"): (143_667_240, 19_632_062_464),
    ("resnet", "resnet18"): (11_689_512, 1_814_073_344),
    ("resnet", "resnet34"): (21_797_672, 3_663_761_408),
    ("resnet", "resnet50b"): (25_557_032, 4_089_184_256),
    ("resnet", "resnet101b"): (44_549_160, 7_801_405_440),
    ("resnet", "resnet152b"): (60_192_808, 11_513_626_624),
    ("densenet", "densenet121"): (7_978_856, 2_834_161_664),
    ("squeezenet", "squeezenet_v1_0"): (1_248_424, 818_924_576),
    ("squeezenet", "squeezenet_v1_1"): (1_235_496, 349_151_936),
    ("shufflenetv2", "shufflenetv2_w1"): (2_278_604, 144_907_992),
    ("efficientnet", "efficientnet_b0"): (5_288_548, 385_814_752),
    ("inceptionv3", "inceptionv3"): (23_834_568, 5_713_216_096),
}
PAPERS = {  # counted by hand from the papers' tables; torchvision has none of them
    ("mobilenet", "mobilenet_w1"): (4_231_976, 568_740_352),
    ("mobilenet", "mobilenet_w3d4"): (2_585_560, 325_400_448),
    ("mobilenet", "mobilenet_wd2"): (1_331_592, 149_497_088),
    ("mobilenet", "mobilenet_wd4"): (470_072, 41_030_272),
    ("shufflenet", "shufflenet_g1_w1"): (1_531_936, 143_078_976),
    ("shufflenet", "shufflenet_g2_w1"): (1_733_848, 140_836_512),
    ("shufflenet", "shufflenet_g3_w1"): (1_865_728, 137_460_672),
    ("shufflenet", "shufflenet_g4_w1"): (1_968_344, 134_339_776),
    ("shufflenet", "shufflenet_g8_w1"): (2_434_768, 138_365_952),
    ("seresnet", "seresnet50b"): (28_088_024, 4_091_699_200),
    ("xception", "xception"): (22_855_952, 8_357_403_496),
    ("resnet_cifar", "resnet20_cifar10"): (272_474, 40_813_184),
    ("resnet_cifar", "resnet110_cifar10"): (1_730_714, 253_149_824),
}


def built(module: str, name: str) -> nn.Module:
    with torch.device("meta"):  # shapes are enough
        net: nn.Module = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    return net


def counts(model: nn.Module, *shape: int) -> tuple[int, int]:
    found = profile(model, torch.zeros(1, *shape))
    assert found.uncounted == ()
    assert found.notes == ()
    return found.params, found.macs


DEEP = {
    "resnet101b",
    "resnet152b",
    "densenet121",
    "inceptionv3",
    "xception",
    "seresnet50b",
    "resnet110_cifar10",
}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        pytest.param(*both, marks=pytest.mark.slow if both[1] in DEEP else ())
        for both in (*TORCHVISION, *PAPERS)
    ],
)
def test_a_known_network_has_its_published_counts(module, name):
    net = built(module, name)

    assert counts(net, 3, *net.in_size) == (TORCHVISION | PAPERS)[module, name]


MOBILE = {  # network -> torchvision's counts, what pytorchcv's differs by
    "mobilenetv2b_w1": ((3_504_872, 300_774_272), (-1000, 0)),
    "mobilenetv3_large_w1": ((5_483_032, 216_589_760), (-1280, 0)),
    "mobilenetv3_small_w1": ((2_542_856, 56_510_400), (256 * (576 + 1000) - 1024, 256 * (576 + 1000))),
}


@pytest.mark.parametrize("name", MOBILE)
def test_a_mobilenet_differs_by_its_head(name):
    published, more = MOBILE[name]
    net = built(name.partition("b_")[0].partition("_")[0], name)

    assert counts(net, 3, 224, 224) == (published[0] + more[0], published[1] + more[1])


@pytest.mark.parametrize("name", MOBILE)
def test_a_mobilenet_with_the_head_of_torchvision_has_its_counts(name):
    net = built(name.partition("b_")[0].partition("_")[0], name)
    with torch.device("meta"):
        if name.startswith("mobilenetv2"):
            net.output = nn.Conv2d(1280, 1000, 1)
        else:
            inner, wide = (960, 1280) if "large" in name else (576, 1024)
            net.output = nn.Sequential(nn.Conv2d(inner, wide, 1), nn.Hardswish(), nn.Conv2d(wide, 1000, 1))

    assert counts(net, 3, 224, 224) == MOBILE[name][0]


def unit(inner: int, outer: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU())


class Inception(nn.Module):
    """Four branches side by side; widths as in table 1 of Szegedy et al., CVPR 2015 (arXiv:1409.4842)."""

    def __init__(
        self, inner: int, one: int, inner3: int, three: int, inner5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                unit(inner, one, 1),
                nn.Sequential(unit(inner, inner3, 1), unit(inner3, three, 3)),
                nn.Sequential(unit(inner, inner5, 1), unit(inner5, five, 3)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(inner, pool, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet() -> nn.Module:
    def halved(side: int = 3) -> nn.MaxPool2d:
        return nn.MaxPool2d(side, 2, ceil_mode=True)

    return nn.Sequential(
        *(unit(3, 64, 7, 2), halved(), unit(64, 64, 1), unit(64, 192, 3), halved()),
        *(Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64), halved()),
        *(Inception(480, 192, 96, 208, 16, 48, 64), Inception(512, 160, 112, 224, 24, 64, 64)),
        *(Inception(512, 128, 128, 256, 24, 64, 64), Inception(512, 112, 144, 288, 32, 64, 64)),
        *(Inception(528, 256, 160, 320, 32, 128, 128), halved(2)),
        *(Inception(832, 256, 160, 320, 32, 128, 128), Inception(832, 384, 192, 384, 48, 128, 128)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)),
    )


def test_googlenet_has_its_published_counts():
    with torch.device("meta"):
        net = googlenet()

    assert counts(net, 3, 224, 224) == (6_624_904, 1_498_376_192)


def test_vit_b16_has_its_published_counts_with_attention():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        net = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
    d, patches, tokens = 768, 14 * 14, 14 * 14 + 1
    unseen = patches * d * 3 * 16 * 16 + 12 * tokens * 8 * d * d + 1000 * d  # without attention modules
    attention = 12 * (tokens * 4 * d * d + 2 * tokens * tokens * d)

    params, macs = counts(net, 3, 224, 224)

    assert params == 86_567_656
    assert macs == unseen + attention == 17_563_828_224
    assert (round(macs / 1e6), round(unseen / 1e6)) == (17_564, 11_271)


def lenet5_classic() -> nn.Module:
    """LeCun et al. 1998, with full connections between the two convolutions."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


SMALL = {
    "LeNet-300-100": (LeNet300, (1, 28, 28), (266_610, 266_200)),
    "LeNet-5, Caffe": (LeNet5, (1, 28, 28), (431_080, 2_293_000)),
    "LeNet-5, classic": (lenet5_classic, (1, 32, 32), (61_706, 416_520)),
    "VGG-small": (VGGSmall, (3, 32, 32), (4_660_106, 607_600_640)),
    "ResNet-20": (lambda: ResNetCifar(3), (3, 32, 32), (269_722, 40_551_040)),
    "ResNet-32": (lambda: ResNetCifar(5), (3, 32, 32), (464_154, 68_862_592)),
    "ResNet-44": (lambda: ResNetCifar(7), (3, 32, 32), (658_586, 97_174_144)),
    "ResNet-56": (lambda: ResNetCifar(9), (3, 32, 32), (853_018, 125_485_696)),
    "ResNet-110": (lambda: ResNetCifar(18), (3, 32, 32), (1_727_962, 252_887_680)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_has_its_published_counts(name):
    make, shape, published = SMALL[name]

    assert counts(make(), *shape) == published
