"""channel_search: the mildest cut of a network that meets the budget of PruneChannels.

    criteria    one ranking of all units, or the same ratio in every group; bisection over how many go (pruning.budget)
    methods     the same ratio in every group, and which units go is decided layer by layer on data:
                thinet, lasso (both refit the next layer), discrimination-aware

Scores that are not comparable between groups are divided by their group's mean before one ranking over all.
A budget in multiply-adds or parameters is searched on estimates and checked by counting what was cut; size and latency are
measured on the cut network for every level that the bisection tries.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import pruning
from ..errors import FormatError, OptionError, StepError, nearest
from ..methods.channel_readers import readers
from ..methods.discrimination_aware import Discrimination, choose_discrimination_aware, retrain_
from ..methods.lasso_channel_pruning import choose_lasso, refit_
from ..methods.thinet import choose_thinet, rescale_
from ..pruning import Evidence, Group, Groups, Plan
from ..pruning.budget import by_rank, by_ratio, within
from ..pruning.compensation import compensate_
from .channel_costs import COUNTED, count, estimate, measured_share

if TYPE_CHECKING:
    from .prune_channels import PruneChannels

COMPARABLE = ("group-l2", "scale", "taylor", "taylor-activation", "random")  # across groups, as they are
LEVELS = 32  # widths that a measured budget is searched on
ATTEMPTS = 8

Choices = Callable[[float], dict[str, Tensor]]


class Method(NamedTuple):
    """Who chooses and who repairs the next layer; labelled: on (inputs, labels) instead of inputs."""

    choose: Callable[..., dict[str, Tensor]]
    repair: Callable[..., None]
    labelled: bool = False


METHODS = {
    "thinet": Method(choose_thinet, rescale_),
    "lasso": Method(choose_lasso, refit_),
    "discrimination-aware": Method(choose_discrimination_aware, retrain_, labelled=True),
}


@dataclass(frozen=True)
class Found:
    """A smaller network, how to repeat it, and the layers that got a bias before the cut."""

    model: nn.Module
    plan: Plan
    choice: dict[str, Tensor]
    biases: list[str]


class Search:
    """One round of cutting; `original` is what shares refer to, `evidence` holds the groups to cut."""

    def __init__(
        self,
        step: PruneChannels,
        model: nn.Module,
        original: nn.Module,
        groups: Groups,
        evidence: Evidence,
        *,
        trial: bool = False,
    ) -> None:
        self.trial = trial
        self.step, self.model, self.original, self.groups, self.evidence = (
            step,
            model,
            original,
            groups,
            evidence,
        )
        self.method = METHODS.get(step.criterion)
        self.skipped: dict[str, str] = {}  # {group: why the method cannot choose in it}
        self.chosen = [group for group in evidence.groups if self._readable(group)]
        if not self.chosen:
            reasons = "; ".join(self.skipped.values())
            raise StepError(f"PruneChannels: {step.criterion} can choose in no group. {reasons}")
        self.example = evidence.example
        self.widths = step._widths()

    def found(self, part: float) -> Found:
        """The cut after `part` of the way to the budget."""
        if self.step.threshold is not None:
            return self._below(self.step.threshold)
        choices, kind = self._choices(), self.step.budget
        if kind == "ratio":
            return self._cut(self._picked(self._by_ratio(choices)))
        share = getattr(self.step, kind) ** part
        if kind in COUNTED:
            return self._counted(kind, share, choices)

        def cost(choice: Mapping[str, Tensor]) -> float:
            return measured_share(kind, self._cut(dict(choice)).model, self.original, self.example)

        found = within(lambda k: choices(k / (LEVELS + 1)), LEVELS, cost, share)
        return self._cut(self._picked(found))

    def _choices(self) -> Choices:
        """What goes when this share of all units goes."""
        step = self.step
        if self.method is not None:
            scores = {g.name: torch.arange(g.size, dtype=torch.float64) for g in self.chosen}
            return lambda share: by_ratio(self.chosen, scores, share, self.widths)
        plain = step.scope == "layer" or step.criterion in COMPARABLE
        normalize = "none" if plain else "mean"
        scores = {
            group.name: pruning.score(group, self.evidence, step.criterion, normalize=normalize)
            for group in self.chosen
        }
        if step.scope == "layer" or isinstance(step.ratio, Mapping):
            return lambda share: by_ratio(self.chosen, scores, share, self.widths)
        total = sum(int(group.removable.sum()) for group in self.chosen)
        return lambda share: by_rank(self.chosen, scores, round(share * total), self.widths)

    def _below(self, threshold: float) -> Found:
        scores = {g.name: pruning.score(g, self.evidence, self.step.criterion) for g in self.chosen}
        if self.trial:  # one batch makes nothing zero yet
            threshold = max(threshold, min(float(score.min()) for score in scores.values()))
        choice: dict[str, Tensor] = {}
        for group in self.chosen:
            gone = int(((scores[group.name] <= threshold) & group.removable.cpu()).sum())
            choice |= by_ratio([group], scores, min(gone / group.size, 1 - 1 / group.size), self.widths)
        if all(bool(kept.all()) for kept in choice.values()):
            lowest = min(float(score.min()) for score in scores.values())
            raise StepError(
                f"PruneChannels: no unit scores {threshold} or less under {self.step.criterion!r}; the lowest has "
                f"{lowest:.4g}. Raise the threshold, or train longer under a penalty (TrainSparse)."
            )
        return self._cut(choice)

    def _by_ratio(self, choices: Choices) -> dict[str, Tensor]:
        """Every round drops the same share of what is left, so that the last one ends at the ratio."""

        def now(ratio: float) -> float:
            kept: float = (1 - ratio) ** (1 / self.step.rounds)
            return 1 - kept

        if not isinstance(self.step.ratio, Mapping):
            assert self.step.ratio is not None
            return choices(now(self.step.ratio))
        picked = {}
        for group in self.chosen:
            ratio = next(
                r for pattern, r in self.step.ratio.items() if fnmatch.fnmatchcase(group.name, pattern)
            )
            picked[group.name] = choices(now(ratio))[group.name]
        return picked

    def _counted(self, kind: str, share: float, choices: Choices) -> Found:
        limit = share * count(kind, self.original, self.example)
        figure, asked = estimate(kind, self.model, self.example, self.chosen), limit
        most = sum(group.size for group in self.chosen)
        left = 0.0
        for _ in range(ATTEMPTS):
            choice = within(lambda k: choices(k / (most + 1)), most, figure, asked)
            trial = pruning.cut(self.model, choice, self.groups)[0]
            if (left := count(kind, trial, self.example)) <= limit:
                return self._cut(self._picked(choice))
            asked *= min(
                limit / left, 0.995
            )  # products of activations are in no weight, so an estimate can miss
        raise StepError(
            f"PruneChannels: {left:.6g} {kind} are left after {ATTEMPTS} attempts, but {limit:.6g} are wanted. Raise the share."
        )

    def _picked(self, choice: dict[str, Tensor]) -> dict[str, Tensor]:
        """The units that a method would keep, as many as in `choice`."""
        if self.method is None:
            return choice
        keep = {name: int(kept.sum()) / len(kept) for name, kept in choice.items() if not bool(kept.all())}
        options = choosing(self.step.criterion, self.step.criterion_options)
        return self.method.choose(
            self.model, self.chosen, self._batches(), keep=keep, seed=self.evidence.seed, **options
        )

    def _readable(self, group: Group) -> bool:
        """Whether the method can choose by what the readers of the group give."""
        if self.method is None:
            return True
        try:
            readers(self.model, group)
        except (FormatError, StepError) as error:
            self.skipped[group.name] = str(error)
        return group.name not in self.skipped

    def _batches(self) -> list[Any]:
        if self.method is not None and self.method.labelled:
            return list(self.evidence.batches)
        return [batch for batch, _ in self.evidence.batches]

    def _cut(self, choice: dict[str, Tensor]) -> Found:
        model = self.model
        biases: list[str] = []
        if self.step.compensate:
            model = copy.deepcopy(model)
            means = {name: found.mean for name, found in self.evidence.activations.items()}
            biases = compensate_(model, self.chosen, choice, means, norms=self.evidence.norms).added
        elif self.step.repair and self.method is not None:
            model = copy.deepcopy(model)
            before = _with_bias(model)
            options = {
                k: v
                for k, v in choosing(self.step.criterion, self.step.criterion_options).items()
                if k == "options"
            }
            self.method.repair(
                model, self.chosen, choice, self._batches(), seed=self.evidence.seed, **options
            )
            biases = [name for name in _with_bias(model) if name not in before]
        smaller, plan = pruning.cut(model, choice, self.groups)
        return Found(smaller, plan, choice, biases)


def choosing(criterion: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that `criterion_options` give the method; OptionError for those it does not have."""
    if not given:
        return {}
    if criterion not in METHODS:
        raise OptionError(
            f"PruneChannels: criterion {criterion!r} has no criterion_options; received {dict(given)!r}."
        )
    own = set(inspect.signature(METHODS[criterion].choose).parameters)
    own -= {"model", "groups", "batches", "keep", "widths", "seed", "options"}
    inner = {f.name for f in dataclasses.fields(Discrimination)} if METHODS[criterion].labelled else set()
    for name in given:
        if name not in own | inner:
            raise OptionError(
                f"PruneChannels: {criterion} has no option {name!r}. {nearest(str(name), own | inner)}"
            )
    options: dict[str, Any] = {name: value for name, value in given.items() if name in own}
    if set(given) & inner:
        options["options"] = Discrimination(**{name: value for name, value in given.items() if name in inner})
    return options


def _with_bias(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if getattr(module, "bias", None) is not None]
