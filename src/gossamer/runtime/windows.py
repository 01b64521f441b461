"""windows: how the filters of a convolution meet an image, as the attributes of Conv say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import graph

LARGEST = 2**10  # of a stride, a pad or the reach of a kernel: more is no network's, and not worth a trial


@dataclass(frozen=True)
class Windows:
    """`pads` are top, left, bottom and right."""

    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1

    def lists(self) -> dict[str, tuple[int, ...]]:
        """The attributes of a node of ours."""
        return {
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": self.pads,
            "group": (self.group,),
        }

    def reach(self, kernel: Sequence[int]) -> tuple[int, int]:
        """Height and width of what one output reads."""
        down, right = (d * (taps - 1) + 1 for d, taps in zip(self.dilations, kernel, strict=True))
        return down, right


def of(attributes: graph.Attributes, kernel: Sequence[int]) -> Windows | None:
    """The windows of a Conv on images; None where its pads are negative or follow the size of the image."""
    lists, plain = attributes.lists, Windows()
    strides, dilations = lists.get("strides", plain.strides), lists.get("dilations", plain.dilations)
    pads, group = lists.get("pads", plain.pads), int(attributes.numbers.get("group", 1))
    if attributes.texts.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    if (len(strides), len(dilations), len(pads)) != (2, 2, 4) or min(pads) < 0:
        return None
    top, left, bottom, right = pads
    found = Windows((strides[0], strides[1]), (dilations[0], dilations[1]), (top, left, bottom, right), group)
    if min(*strides, *dilations, group) < 1 or max(*strides, *pads, *found.reach(kernel)) > LARGEST:
        return None
    return found
