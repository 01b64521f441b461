"""PruneChannels: a smaller ordinary network, without the channels that matter least.

Groups of channels that can only go together are found on the traced graph (pruning.groups). A criterion scores their units
(pruning.channel_criteria), or a method rebuilds layer by layer what the next one reads; a budget turns that into an exact
choice (steps.channel_search), and the network is cut (pruning.surgery). What comes out is a module of the same class with
narrower layers, so every later step and every engine takes it as it is.

    ratio        fraction of the units that go, of every group or {group: ratio}
    macs         share of the multiply-adds that may stay, as `measure.profile` counts them
    parameters   share of the parameters that may stay
    size         share of the bytes of the packed file that may stay, measured on packed files
    threshold    every unit whose score is at most this goes, e.g. 0 after TrainSparse
    latency      share of the milliseconds that may stay, measured in ONNX Runtime on this machine, batch 1

Raises: OptionError for options that cannot be right; StepError when no group can be cut; the model is then untouched.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import pruning
from ..errors import OptionError, StepError, nearest
from ..pruning import CHANNEL_CRITERIA, Evidence, Group, Groups, Plan
from ..pruning.budget import Widths
from .base import Context, Edit
from .channel_costs import COUNTED, MEASURED
from .channel_search import METHODS, Found, Search, choosing
from .train import Finetune

BUDGETS = ("ratio", "threshold", *COUNTED, *MEASURED)
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Finetune):
    """Remove channels until one budget is met: ratio, macs, parameters, size, latency or threshold.

    criterion: a name of pruning.CHANNEL_CRITERIA, or thinet, lasso, discrimination-aware, whose own arguments are
    criterion_options and which also refit the next layer unless repair is False; scope: "global", one ranking of all units,
    or "layer", the same ratio everywhere (these three always); layers, skip: groups by name or glob (a group is named after
    the first layer that makes it); round_to: channels that stay are a multiple of it (None: 8 when latency is the budget,
    else 1); min_width: the fraction of its units that a group keeps at least; through_norms: layer-normalized widths too;
    compensate: what removed channels gave on average goes into the next biases; samples: training inputs that criteria look
    at; rounds: of cutting and training, each `epochs` with the options of Finetune.
    """

    structural: ClassVar[bool] = True

    ratio: float | Mapping[str, float] | None = None
    macs: float | None = None
    parameters: float | None = None
    size: float | None = None
    latency: float | None = None
    threshold: float | None = None
    criterion: str = "group-l2"
    criterion_options: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "global"
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()
    round_to: int | None = None
    min_width: float = 0.1
    through_norms: bool = False
    repair: bool = True
    compensate: bool = False
    samples: int = 256
    rounds: int = 1
    epochs: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(
                f"PruneChannels needs exactly one of {', '.join(BUDGETS)}; received {', '.join(given) or 'none'}."
            )
        for ratio in _values(self.ratio):
            if not (isinstance(ratio, (int, float)) and 0 <= ratio < 1):
                raise OptionError(
                    f"PruneChannels: ratio is the fraction of channels removed, 0 <= ratio < 1; received {ratio!r}. "
                    "A layer pruned to nothing cannot compute."
                )
        share = getattr(self, given[0])
        if given[0] in (*COUNTED, *MEASURED) and not (isinstance(share, (int, float)) and 0 < share < 1):
            raise OptionError(
                f"PruneChannels: {given[0]} is the share that may stay, between 0 and 1; received {share!r}."
            )
        if self.threshold is not None and (self.threshold < 0 or self.criterion in METHODS):
            raise OptionError(
                f"PruneChannels: threshold is a score, at least 0, of a criterion that gives scores; received "
                f"{self.threshold!r} with {self.criterion!r}."
            )
        known = (*CHANNEL_CRITERIA, *METHODS)
        if self.criterion not in known:
            raise OptionError(
                f"PruneChannels: unknown criterion {self.criterion!r}. {nearest(str(self.criterion), known)}"
            )
        if self.scope not in ("layer", "global"):
            raise OptionError(f"PruneChannels: scope is 'layer' or 'global'; received {self.scope!r}.")
        for name in ("samples", "rounds"):
            if not (isinstance(value := getattr(self, name), int) and value >= 1):
                raise OptionError(
                    f"PruneChannels: {name} is a whole number of at least 1; received {value!r}."
                )
        choosing(self.criterion, self.criterion_options)
        self._widths()

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        original, report = model, []
        example = context.example
        if example is None:
            example = torch.from_numpy(context.need_data("PruneChannels").batch(2))
        for round_ in range(1, (1 if context.trial else self.rounds) + 1):
            groups = self._groups(model, example, context)
            evidence = self._evidence(model, groups, example, context)
            search = Search(self, model, original, groups, evidence, trial=context.trial)
            for name, reason in search.skipped.items():
                context.skip(name, reason)
            found = search.found(round_ / self.rounds)
            model = found.model
            context.edits.append({"biases": found.biases, "plan": found.plan.to_json()})
            report.append(_told(search, found, groups))
            if self.epochs:
                context.train(model, f"channels-{round_}", **self.options(context))
        context.notes["channels"] = report
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        for edit in edits:
            for path in edit["biases"]:
                layer = model.get_submodule(path)
                rows = len(layer.get_parameter("weight"))
                layer.register_parameter("bias", nn.Parameter(torch.zeros(rows)))
            model = Plan.from_json(edit["plan"]).apply(model)
        return model

    @property
    def budget(self) -> str:
        """Which of BUDGETS is given."""
        return next(name for name in BUDGETS if getattr(self, name) is not None)

    def _widths(self) -> Widths:
        multiple = self.round_to if self.round_to is not None else 8 if self.latency is not None else 1
        return Widths(least=self.min_width, multiple=multiple)

    def _groups(self, model: nn.Module, example: Any, context: Context) -> Groups:
        groups = pruning.find_groups(model, example, through_norms=self.through_norms)
        known = [group.name for group in groups]
        for pattern in (
            *(self.layers or ()),
            *self.skip,
            *(self.ratio if isinstance(self.ratio, Mapping) else ()),
        ):
            if not fnmatch.filter(known, pattern):
                raise OptionError(
                    f"PruneChannels: no group of channels matches {pattern!r}. {nearest(pattern, known)}"
                )
        for wall in groups.walls:
            context.skip(wall.layer or "*", str(wall))
        return groups

    def _wanted(self, group: Group) -> bool:
        asked = tuple(self.ratio) if isinstance(self.ratio, Mapping) else ("*",)
        asked = tuple(self.layers) if self.layers is not None else asked
        named = any(fnmatch.fnmatchcase(group.name, pattern) for pattern in asked)
        left_out = any(fnmatch.fnmatchcase(group.name, pattern) for pattern in self.skip)
        return named and not left_out and bool(group.removable.any())

    def _evidence(self, model: nn.Module, groups: Groups, example: Any, context: Context) -> Evidence:
        chosen = [group for group in groups if self._wanted(group)]
        if not chosen:
            walls = "; ".join(str(wall) for wall in groups.walls)
            raise StepError(
                "PruneChannels: no group of channels is left to cut. "
                + (walls or "Name groups with layers=[...], or take fewer into skip.")
            )
        batches: list[tuple[Tensor, Tensor]] = []
        if context.data is not None:
            data, wanted = context.data, min(8 if context.trial else self.samples, len(context.data.train))
            rows = np.sort(np.random.default_rng(context.seed).choice(len(data.train), wanted, replace=False))
            for start in range(0, wanted, BATCH):
                raw, labels = data.train.take(rows[start : start + BATCH])
                batches.append((torch.from_numpy(data.preprocess(raw)), torch.from_numpy(labels).long()))
        return Evidence(model, chosen, batches, example=example, seed=context.seed)


def _values(option: float | Mapping[str, float] | None) -> list[Any]:
    if option is None:
        return []
    return list(option.values()) if isinstance(option, Mapping) else [option]


def _told(search: Search, found: Found, groups: Groups) -> dict[str, Any]:
    """What a report says of a cut: units left and units before, of every group that could lose some."""
    left = {name: len(units) for name, units in found.plan.kept.items()}
    widths = {group.name: [left.get(group.name, group.size), group.size] for group in search.chosen}
    return {"widths": widths, "walls": [*map(str, groups.walls), *found.plan.walls.values()]}
