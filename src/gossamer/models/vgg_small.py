"""VGG-small: six 3x3 convolutions in pairs of 128, 256 and 512 channels, for 32 x 32 pictures.

    [conv - BN - ReLU] x 2, pool, three times - linear                         4,660,106 parameters
    vgg-tiny: the same with 16, 32 and 64 channels, for 28 x 28 grey pictures     77,786 parameters
    vgg-small-pool-first, vgg-tiny-pool-first: pool - BN - ReLU, where signs take the place of ReLU

The usual network of papers on binary, ternary and low-bit weights. The largest of four signs is +1 nearly always, so
networks of signs pool the sums before the norm: BNN's order (conv - pool - BN - sign), which is also XNOR-Net's (BN - sign -
conv - pool) seen from the next block. Inputs are [N, channels, side, side], outputs logits.
Sources: Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015, section 3.2, with one linear layer at the end as in
Zhang, Yang, Ye, Hua, "LQ-Nets", ECCV 2018; Rastegari et al., "XNOR-Net", ECCV 2016, section 3.2 (the order).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

WIDTHS = (128, 128, 256, 256, 512, 512)
TINY = (16, 16, 32, 32, 64, 64)


class VGGSmall(nn.Module):
    """Max pooling halves the picture after every second convolution, at the end of its block or before the norm."""

    def __init__(
        self,
        *,
        widths: Sequence[int] = WIDTHS,
        channels: int = 3,
        side: int = 32,
        classes: int = 10,
        pool_first: bool = False,
    ) -> None:
        super().__init__()
        self.input_shape = (1, channels, side, side)
        layers: list[nn.Module] = []
        inner = channels
        for index, outer in enumerate(widths):
            conv = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
            rest: list[nn.Module] = [nn.BatchNorm2d(outer), nn.ReLU()]
            if index % 2:
                rest.insert(0 if pool_first else 2, nn.MaxPool2d(2))
                side //= 2
            layers += [conv, *rest]
            inner = outer
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(inner * side * side, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.features(x).flatten(1))
        return logits
