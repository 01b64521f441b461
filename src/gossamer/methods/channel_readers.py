"""Channel readers: the layers that read a group's channels (role "in"), in the order in which they run.

    units[k] = the unit that owns column k of the unfolded weight W [g, O/g, K], -1 for none; K = I/g kh kw

Methods that choose channels by what layers give go from the input on: a group is decided at its first reader, the columns
of what goes become zero in every reader, and later layers see the network as it is by then (`one_by_one`). What can be
removed afterwards (pruning.cut) is thus already without effect.
Raises: FormatError for readers that are neither Linear nor Conv2d, StepError for groups that nothing reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import FormatError, OptionError, StepError, nearest
from .layer_inputs import Batch, called, reconstructable

if TYPE_CHECKING:
    from ..pruning.budget import Widths
    from ..pruning.group import Group


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels; module: Linear or Conv2d; units: int64 [K]."""

    layer: str
    module: nn.Module
    units: Tensor

    @property
    def parameter(self) -> Tensor:
        """The weight as the module keeps it."""
        assert isinstance(self.module, (nn.Linear, nn.Conv2d))
        return self.module.weight

    @property
    def weight(self) -> Tensor:
        """W, float64 [g, O/g, K], a copy."""
        groups = self.module.groups if isinstance(self.module, nn.Conv2d) else 1
        flat = self.parameter.detach().double().cpu()
        return flat.reshape(groups, len(flat) // groups, -1).clone()

    @torch.no_grad()
    def write_(self, weight: Tensor) -> None:
        """Replace W."""
        self.parameter.copy_(weight.reshape(self.parameter.shape))

    def columns(self, kept: Tensor) -> Tensor:
        """The columns that stay when `kept` [units] do: bool [K]."""
        return kept[self.units.clamp_min(0)] | (self.units < 0)


def readers(model: nn.Module, group: Group) -> list[Reader]:
    """The layers that read a group."""
    found = []
    for member in group.of("in"):
        layer, _, leaf = member.name.rpartition(".")
        module = reconstructable(model, layer)
        assert isinstance(module, (nn.Linear, nn.Conv2d))
        if leaf != "weight" or member.dim != 1:
            raise FormatError(
                f"{member.name}: channels are read along dimension {member.dim}; expected dimension 1 of a weight. "
                f"Leave the group {group.name} out, or choose its channels by a criterion."
            )
        window = module.weight[0, 0].numel()
        found.append(Reader(layer, module, member.units.cpu().repeat_interleave(window)))
    if not found:
        raise StepError(
            f"{group.name}: no layer reads these channels, so none can be told by what it gives. Leave the group out."
        )
    return found


def in_order(
    model: nn.Module, groups: Iterable[Group], batches: Iterable[Batch]
) -> list[tuple[Group, list[Reader]]]:
    """Groups in the order of their first readers, each with its readers in the order in which they run."""
    found = [(group, readers(model, group)) for group in groups]
    layers = dict.fromkeys(reader.layer for _, held in found for reader in held)
    order = {layer: at for at, layer in enumerate(called(model, list(layers), batches))}
    for layer in layers:
        if layer not in order:
            raise StepError(
                f"{layer}: {type(model).__name__} never calls this layer, so it has no inputs to learn from. Leave its "
                "group out."
            )
    sorted_ = [(group, sorted(held, key=lambda reader: order[reader.layer])) for group, held in found]
    return sorted(sorted_, key=lambda pair: order[pair[1][0].layer])


def one_by_one(
    model: nn.Module,
    groups: Iterable[Group],
    batches: Iterable[Batch],
    choose: Callable[[Group, list[Reader]], Tensor],
    repair: Callable[[Group, list[Reader], Tensor], None] | None = None,
) -> dict[str, Tensor]:
    """Choose each group, zero the columns of what goes, repair its readers; in place, from the input on."""
    choice = {}
    for group, held in in_order(model, groups, batches):
        kept = choice[group.name] = choose(group, held)
        for reader in held:
            reader.write_(reader.weight * reader.columns(kept))
        if repair is not None:
            repair(group, held, kept)
    return choice


def how_many(
    groups: Sequence[Group], keep: float | Mapping[str, float], widths: Widths | None = None
) -> dict[str, int]:
    """{group: units that stay}; keep: the fraction, one or {group: fraction}, rounded up; unnamed groups are left out."""
    known = {group.name: group for group in groups}
    shares = keep if isinstance(keep, Mapping) else dict.fromkeys(known, keep)
    counts = {}
    for name, share in shares.items():
        if name not in known:
            raise OptionError(f"keep: no group {name!r}. {nearest(name, known)}")
        if not 0 < share <= 1:
            raise OptionError(
                f"{name}: keep is the fraction of channels that stay, 0 < keep <= 1; received {share!r}."
            )
        group = known[name]
        count = max(1, math.ceil(share * group.size - 1e-9), int((~group.removable).sum()))
        counts[name] = widths.needed(group, count) if widths is not None else count
    return counts
