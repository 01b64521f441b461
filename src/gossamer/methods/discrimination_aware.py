"""Discrimination-aware channel pruning: channels are added that a loss on features and on classes asks for most.

    L = 1/(2 Q) |O - O_original|^2 + lambda L_S        O: what the readers give (Q numbers); L_S: cross entropy of the
                                                       auxiliary head behind the segment (methods.auxiliary_heads)
    A = {};  repeat:  k = argmax over channels not in A of |dL/dW[:, k]|;  A += k with its old weights;  train W_A on L

dL/dW is taken at W = 0 outside A, over all batches, with the norms as they are. The norm of a slice is its Frobenius norm
or, as in the official code, the sum over outputs of the norms of its kernels ("l21"). With a `tolerance` adding stops early,
when L falls by no more than this part of L(A = {}) ("DCP-Adapt"); `keep` is then the most that stays.

Differs from the paper: channels are added in blocks; the network is taken as trained, so the heads learn on it while it
stands still, where the paper trains both for 100 epochs; W_A makes one pass per block; several layers that read a channel
add up.
Source: Zhuang et al., "Discrimination-aware channel pruning for deep neural networks", NeurIPS 2018, arXiv:1810.11809,
algorithms 1 and 2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import OptionError, TrainingError
from .auxiliary_heads import Labelled, Segments, ends_of, learn_heads
from .channel_readers import Reader, how_many, in_order, one_by_one
from .layer_inputs import evaluating, watch

if TYPE_CHECKING:
    from ..pruning.budget import Widths
    from ..pruning.group import Choice, Group

NORMS = ("frobenius", "l21")


@dataclass(frozen=True, kw_only=True)
class Discrimination:
    """balance: lambda; norm: of the gradient of a slice; segments: of the network, each but the last with a head.

    ends: paths of the modules that end the segments (None: equal depths); head_epochs: passes over the data for the
    heads; lr: for W_A, with momentum 0.9 and weight decay 1e-4.
    """

    balance: float = 1.0
    norm: str = "frobenius"
    segments: int = 3
    ends: Sequence[str] | None = None
    head_epochs: int = 20
    lr: float = 0.01

    def __post_init__(self) -> None:
        if self.norm not in NORMS or not self.balance >= 0 or not self.lr > 0:
            raise OptionError(
                f"Discrimination: norm {self.norm!r}, balance {self.balance!r}, lr {self.lr!r}; expected a norm of "
                f"{', '.join(NORMS)}, balance of at least 0 and a positive lr."
            )


def choose_discrimination_aware(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Sequence[Labelled],
    *,
    keep: float | Mapping[str, float],
    widths: Widths | None = None,
    block: int = 4,
    tolerance: float | None = None,
    options: Discrimination | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Which units of each group stay; the model is left as it is.

    keep: fraction of the units, one or {group: fraction}; groups it does not name stay whole. block: units added for one
    gradient over all batches, each an (inputs, labels) pair of training data.
    """
    if block < 1:
        raise OptionError(f"block: {block!r}; expected a whole number of at least 1.")
    counts = how_many(groups, keep, widths)
    named = [group for group in groups if group.name in counts]
    twin = copy.deepcopy(model).requires_grad_(False)
    losses = _Losses(twin, model, named, batches, options or Discrimination(), seed)

    def choose(group: Group, held: list[Reader]) -> Tensor:
        objective = losses.of(held)
        old = [reader.parameter.detach().clone() for reader in held]
        chosen = ~group.removable.cpu()
        before = start = None
        while True:
            for reader, weight in zip(held, old, strict=True):
                _keep_only_(reader, chosen, weight)
            if bool(chosen.any()):
                objective.train_(chosen)
            if int(chosen.sum()) >= counts[group.name]:
                return chosen
            loss, gradients = objective.gradients()
            if start is None or before is None:
                start = loss
            elif tolerance is not None and bool(chosen.any()) and abs(before - loss) <= tolerance * start:
                return chosen
            before = loss
            scores = slice_norms(held, gradients, group.size, losses.options.norm)
            scores[chosen] = -torch.inf
            wanted = min(block, counts[group.name] - int(chosen.sum()))
            added = scores.argsort(descending=True, stable=True)[:wanted]
            for reader, weight in zip(held, old, strict=True):
                weight.copy_(
                    _filled(reader, weight, chosen)
                )  # what was trained replaces what it started from
            chosen = chosen.clone()
            chosen[added] = True

    return one_by_one(twin, named, [x for x, _ in batches], choose)


def retrain_(
    model: nn.Module,
    groups: Sequence[Group],
    choice: Choice,
    batches: Sequence[Labelled],
    *,
    reference: nn.Module | None = None,
    options: Discrimination | None = None,
    epochs: int = 1,
    seed: int = 0,
) -> None:
    """Zero, in place, the columns that read what a choice removes, and train the others on the same loss, layer by layer.

    reference: the original network, with the same names (None: `model` as it is given).
    """
    named = [group for group in groups if group.name in choice]
    original = reference if reference is not None else copy.deepcopy(model)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    losses = _Losses(model.requires_grad_(False), original, named, batches, options or Discrimination(), seed)

    def train(group: Group, held: list[Reader], kept: Tensor) -> None:
        objective = losses.of(held)
        for _ in range(epochs):
            objective.train_(kept)

    try:
        one_by_one(model, named, [x for x, _ in batches], lambda group, held: choice[group.name].cpu(), train)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None


def slice_norms(held: Sequence[Reader], gradients: Sequence[Tensor], size: int, norm: str) -> Tensor:
    """Norm of each unit's slice of the readers' gradients, float64 [size]."""
    total = torch.zeros(size, dtype=torch.float64)
    for reader, gradient in zip(held, gradients, strict=True):
        rows = gradient.double().cpu().reshape(*reader.weight.shape).square().flatten(0, 1)  # [O, K]
        squares = torch.zeros(len(rows), size + 1, dtype=torch.float64)
        squares.index_add_(1, reader.units + 1, rows)
        total += squares[:, 1:].sqrt().sum(0) if norm == "l21" else squares[:, 1:].sum(0)
    return total if norm == "l21" else total.sqrt()


class _Enough(Exception):
    """Not an error: it ends a forward at the end of a segment."""


class _Losses:
    """The losses of all groups of a network: its heads, learnt once, and what its layers gave at first."""

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        groups: Sequence[Group],
        batches: Sequence[Labelled],
        options: Discrimination,
        seed: int,
    ) -> None:
        self.model, self.reference, self.batches, self.options = model, reference, batches, options
        inputs = [x for x, _ in batches]
        layers = list(
            dict.fromkeys(reader.layer for _, held in in_order(model, groups, inputs) for reader in held)
        )
        ends = options.ends if options.ends is not None else ends_of(model, layers, options.segments)
        ends = ends if options.balance else ()
        self.segments: Segments = learn_heads(
            reference, layers, batches, ends=ends, epochs=options.head_epochs, seed=seed
        )

    def of(self, held: list[Reader]) -> _Objective:
        return _Objective(self, held)


class _Objective:
    """L of one group as a function of its readers' weights."""

    def __init__(self, losses: _Losses, held: list[Reader]) -> None:
        self.losses, self.held = losses, held
        self.layers = [reader.layer for reader in held]
        # without classes nothing behind the readers matters
        self.end = losses.segments.end_of(self.layers[-1]) if losses.options.balance else self.layers[-1]
        self.aims: list[list[Tensor]] = []
        for x, _ in losses.batches:
            seen: list[Tensor] = []
            watch(losses.reference, self.layers, [x], lambda _, a, b, into=seen: into.append(b.clone()))  # type: ignore[misc]
            self.aims.append(seen)

    def gradients(self) -> tuple[float, list[Tensor]]:
        """L over all batches, and its gradients to the readers' weights."""
        weights = [reader.parameter for reader in self.held]
        total, sums = 0.0, [torch.zeros_like(weight) for weight in weights]
        for at in range(len(self.losses.batches)):
            loss, gradients = self._slopes(at, weights)
            total += loss
            for into, gradient in zip(sums, gradients, strict=True):
                into += gradient
        return total / len(self.losses.batches), sums

    def train_(self, kept: Tensor) -> None:
        """One pass of gradient descent over the kept slices, and the biases."""
        weights = [reader.parameter for reader in self.held]
        biases = [r.module.bias for r in self.held if isinstance(r.module.bias, Tensor)]
        masks = [
            reader.columns(kept).to(w.device).expand(len(w), -1).reshape(w.shape)
            for reader, w in zip(self.held, weights, strict=True)
        ]
        parameters = [*weights, *biases]
        optimizer = torch.optim.SGD(
            parameters, lr=self.losses.options.lr, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        for at in range(len(self.losses.batches)):
            for parameter, gradient in zip(parameters, self._slopes(at, parameters)[1], strict=True):
                parameter.grad = gradient
            for weight, mask in zip(weights, masks, strict=True):
                assert weight.grad is not None
                weight.grad *= mask
            optimizer.step()
        optimizer.zero_grad()

    def _slopes(self, at: int, parameters: list[Tensor]) -> tuple[float, tuple[Tensor, ...]]:
        """L of one batch, and its gradients."""
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            loss = self._loss(at)
            return float(loss.detach()), torch.autograd.grad(loss, parameters)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)

    def _loss(self, at: int) -> Tensor:
        x, labels = self.losses.batches[at]
        given, features = self._run(x if isinstance(x, tuple) else (x,))
        errors = [F.mse_loss(o, aim) / 2 for o, aim in zip(given, self.aims[at], strict=True)]
        loss = torch.stack(errors).sum()
        if self.losses.options.balance:
            head: Callable[[Tensor], Tensor] = self.losses.segments.heads.get(self.end, _as_it_is)
            loss = loss + self.losses.options.balance * F.cross_entropy(
                head(features), labels.to(features.device)
            )
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"{', '.join(self.layers)}: the loss is not finite while channels are added. Lower the lr of "
                "Discrimination."
            )
        return loss

    def _run(self, args: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor]:
        """What the readers give and what the segment ends with; nothing behind the end runs."""
        model, given, ended = self.losses.model, [], []

        def stop(_: nn.Module, __: Any, y: Tensor) -> None:
            ended.append(y)
            raise _Enough

        handles = [
            model.get_submodule(layer).register_forward_hook(lambda m, a, y: given.append(y.clone()))
            for layer in self.layers
        ]
        if self.end:
            handles.append(model.get_submodule(self.end).register_forward_hook(stop))
        try:
            with suppress(_Enough), evaluating(model), torch.enable_grad():
                ended.append(model(*args))
        finally:
            for handle in handles:
                handle.remove()
        return given, ended[-1]


def _as_it_is(x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def _keep_only_(reader: Reader, chosen: Tensor, weight: Tensor) -> None:
    reader.parameter.copy_(weight)
    reader.write_(reader.weight * reader.columns(chosen))


def _filled(reader: Reader, old: Tensor, chosen: Tensor) -> Tensor:
    """The reader's present weights where chosen, the old ones elsewhere."""
    mask = reader.columns(chosen).to(old.device).expand(len(old), -1).reshape(old.shape)
    return torch.where(mask, reader.parameter.detach(), old)
