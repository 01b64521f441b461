"""Patches: what single output positions of a layer read, and what they give.

    inputs   x [g, M, K]: padded, strided windows, unfolded      outputs   y [g, M, O/g] = x @ W^T + b, W as [g, O/g, K]

K = I/g times the kernel's size (I for a linear layer), g groups, M = samples * places. Places of a convolution are
positions of its output; every row of a linear layer's input is one, and none is left out.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn, randperm
from torch.nn import functional as F

UNFOLDED = 2**24  # numbers held while convolutions are unfolded: 64 MB of float32


def supported(module: nn.Module) -> bool:
    """Whether the inputs of this kind of layer can be unfolded."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def places(y: Tensor, positions: int, generator: Generator) -> Tensor | None:
    """Indices of at most `positions` places of an output [N, O, H, W], the same for all samples; None: all of them."""
    count = y[0, 0].numel() if y.dim() == 4 else 0
    return randperm(count, generator=generator)[:positions] if count > positions else None


def inputs(module: nn.Module, x: Tensor, at: Tensor | None = None) -> Tensor:
    """x [g, M, K] of a layer's input, at all places or at those of `places`."""
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    assert isinstance(module, nn.Conv2d)
    padding = module.padding
    assert not isinstance(padding, str)
    unfolded = F.unfold(
        x.contiguous(),
        module.kernel_size,
        dilation=module.dilation,
        padding=padding,
        stride=module.stride,
    )
    return _rows(unfolded, module.groups, at)


def outputs(module: nn.Module, y: Tensor, at: Tensor | None = None) -> Tensor:
    """y [g, M, O/g] of a layer's output, in the order of `inputs`."""
    if isinstance(module, nn.Linear):
        return y.reshape(1, -1, y.shape[-1])
    assert isinstance(module, nn.Conv2d)
    return _rows(y.flatten(2), module.groups, at)


def chunk(module: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many samples to unfold at once."""
    if not isinstance(module, nn.Conv2d):
        return len(x)
    per_sample = x.shape[1] * module.kernel_size[0] * module.kernel_size[1] * y.shape[2] * y.shape[3]
    return max(1, UNFOLDED // per_sample)


def _rows(columns: Tensor, groups: int, at: Tensor | None) -> Tensor:
    """[N, g K, places] -> [g, N places, K]."""
    if at is not None:
        columns = columns[:, :, at.to(columns.device)]
    n, rows, count = columns.shape
    return (
        columns.reshape(n, groups, rows // groups, count)
        .permute(1, 0, 3, 2)
        .reshape(groups, n * count, rows // groups)
    )
