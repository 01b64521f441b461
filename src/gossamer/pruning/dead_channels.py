"""Dead channels: units that can go because nothing reads them, or because they are always zero.

    not read      every column (role "in") is zero
    always zero   every row (role "out") is zero, and so are the biases, the shifts and the running means of norms

A zero filter makes a channel of the next layer dead, and a zero channel a filter of the layer before: what goes with a dead
unit is zero from then on, until nothing more dies. Removal changes no output, if the activation maps 0 to 0.
constants: rows of zeros are enough; the unit is then a constant that `compensation` must move into the next layer.
Of a group in which all is dead one unit stays.
Source: Wen, Wu, Wang, Chen, Li, NIPS 2016, arXiv:1608.03665, section 3 (filters and channels that die together).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .. import formats
from .group import IN, OUT, WITH, Group, Member

SHIFTS = ("bias", "running_mean")


def dead_channels(model: nn.Module, groups: Iterable[Group], *, constants: bool = False) -> dict[str, Tensor]:
    """The choice that removes every dead unit: {group: bool [size], True = kept}; the model is left as it is."""
    groups = list(groups)
    tensors = {**formats.plain_parameters(model), **dict(model.named_buffers())}
    names = {member.name for group in groups for member in group.members if member.name in tensors}
    alive = {name: tensors[name].detach().cpu() != 0 for name in names}
    choice = {group.name: torch.ones(group.size, dtype=torch.bool) for group in groups}
    changed = True
    while changed:
        changed = False
        for group in groups:
            kept = choice[group.name] & ~_dead(group, alive, constants=constants)
            if not torch.equal(kept, choice[group.name]):
                choice[group.name], changed = kept, True
                for member in group.members:
                    _clear(alive.get(member.name), member, kept)
    for kept in choice.values():
        if not bool(kept.any()):
            kept[0] = True
    return choice


def _dead(group: Group, alive: dict[str, Tensor], *, constants: bool) -> Tensor:
    read = _any(group, list(group.of(IN)), alive)
    makers = list(group.of(OUT))
    if not constants:
        makers += [m for m in group.of(WITH) if m.name.rpartition(".")[2] in SHIFTS]
    return group.removable.cpu() & ~(read & _any(group, makers, alive))


def _any(group: Group, members: list[Member], alive: dict[str, Tensor]) -> Tensor:
    """Whether a unit has anything but zeros in these members; without members: unknown, hence yes."""
    found = torch.zeros(group.size, dtype=torch.bool)
    for member in members:
        if member.name not in alive:
            return torch.ones_like(found)
        here = alive[member.name].movedim(member.dim, 0).reshape(len(member.units), -1).any(dim=1)
        units = member.units.cpu()
        found[units[(units >= 0) & here]] = True
    return found if members else torch.ones_like(found)


def _clear(alive: Tensor | None, member: Member, kept: Tensor) -> None:
    units = member.units.cpu()
    gone = (units >= 0) & ~kept[units.clamp_min(0)]
    if alive is not None:
        alive.movedim(member.dim, 0)[gone] = False
