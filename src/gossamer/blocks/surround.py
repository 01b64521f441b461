"""surround: what a convolution puts around its images becomes a ConstantPad2d before it.

    conv, padding p   ->   ConstantPad2d(p, value), conv without padding

With value 0 nothing changes. Around signs 1 is a sign too, so that padded images need no third value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def zeros_around(conv: nn.Conv2d) -> tuple[int, int, int, int] | None:
    """The zeros left, right, above and below (as F.pad orders them); None where it pads with something else."""
    if conv.padding_mode != "zeros":
        return None
    if conv.padding == "valid":
        return (0, 0, 0, 0)
    if conv.padding == "same":  # what is odd goes to the end
        more = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in more)
        return (left, right, top, bottom)
    down, across = (int(size) for size in conv.padding)
    return (across, across, down, down)


def surround_(conv: nn.Conv2d, around: Sequence[int], value: float) -> None:
    """Let a ConstantPad2d, the module's child `pad`, go before every call, in place of the module's own padding."""
    left, right, top, bottom = around
    conv.padding = (0, 0)
    conv.pad = nn.ConstantPad2d((left, right, top, bottom), value)
    conv.register_forward_pre_hook(_padded, with_kwargs=True)


def _padded(
    conv: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = args[0] if args else kwargs["input"]
    pad = conv.get_submodule("pad")
    return (pad(x),), {}
