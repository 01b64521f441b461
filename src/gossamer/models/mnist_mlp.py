"""MnistMLP: three hidden layers of 1024 with batch norms, the network of the papers on binary weights.

    784 - [linear - BN - Hardtanh] x 3, 1024 wide - linear 10 - BN                    2,916,372 parameters
    mlp-mnist-wide: 2048 wide with ReLU                                              10,027,028 parameters

The wide one is for products by pruned weights: like the layers of EIE its weights lie beyond the caches (40 MB), and its
activations hold zeros.

Its signs are BNN: `Binarize(weights="BNN", activations="sign", edges=True)`. Layers have no bias, since a norm follows each,
the last one too: its inputs are then sums of thousands of signs. Inputs are [N, 1, 28, 28] or [N, 784], outputs logits
[N, classes].
Sources: Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015, arXiv:1511.00363, section 3.1 (1024 wide, ReLU); Courbariaux
et al., "Binarized neural networks", 2016, arXiv:1602.02830, section 2.1 and the authors' code (Hardtanh's range, norm of
the outputs, eps 1e-4).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

EPS = 1e-4


class MnistMLP(nn.Module):
    """Linear layers, each followed by a batch norm; `width` hidden units and an `activation` in each of three layers."""

    input_shape = (1, 1, 28, 28)

    def __init__(
        self, *, width: int = 1024, classes: int = 10, activation: Callable[[], nn.Module] = nn.Hardtanh
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inner = 784
        for outer in (width, width, width):
            layers += [nn.Linear(inner, outer, bias=False), nn.BatchNorm1d(outer, eps=EPS), activation()]
            inner = outer
        self.layers = nn.Sequential(
            *layers, nn.Linear(inner, classes, bias=False), nn.BatchNorm1d(classes, eps=EPS)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.flatten(1))
        return logits
