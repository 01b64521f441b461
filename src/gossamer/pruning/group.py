"""Group: channels that can only go together, named by the weights they live in.

A network has groups of channels; a group has `size` units, and removing unit u removes, in every member, all indices i
of dimension `dim` with units[i] == u. A unit is one channel, or several that cannot be parted (an attention head, a group
of a grouped convolution, the r^2 channels behind a pixel shuffle).

    role "out"    rows of a layer that make the channels          conv.weight dim 0, linear.weight dim 0, embedding dim 1
    role "in"     columns of a layer that reads them              conv.weight dim 1, linear.weight dim 1
    role "with"   one entry per channel, made or read by neither  bias, norm weight, running_mean, depthwise weight, scale

A choice says what stays: {name of a group: bool [size], True = kept}; groups that are not named stay whole.
Source: Fang, Ma, Song, Mi, Wang, "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

OUT, IN, WITH = "out", "in", "with"

Choice: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One dimension of one parameter or buffer.

    name: its plain name (`layer1.0.conv1.weight`), whatever format it has; units: int64 [shape[dim]], the unit that owns
    each index, -1 for an index of no unit of this group.
    """

    name: str
    dim: int
    units: Tensor
    role: str


@dataclass(frozen=True)
class Group:
    """Channels that go together; `name` is the path of the first layer that makes them.

    removable: bool [size], False for units that reach something that cannot shrink.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    removable: Tensor

    def of(self, role: str) -> Iterator[Member]:
        """The members of one role, in the order in which the network runs."""
        return (member for member in self.members if member.role == role)


@dataclass(frozen=True)
class Wall:
    """A place where channels could not be followed: the operator, the layer it belongs to, and why."""

    operator: str
    layer: str
    reason: str

    def __str__(self) -> str:
        return f"not pruned through here: {self.operator} at {self.layer or 'the network'}: {self.reason}"
