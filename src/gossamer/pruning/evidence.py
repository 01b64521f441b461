"""Evidence: what channel criteria may look at, gathered when a criterion first asks for it.

    parameters    by plain name, decoded where a format is attached
    norms         {layer: the batch norm directly behind it}, read off the traced graph
    activations   figures of the inputs of every layer that reads a group, one pass over the batches
    salience      w dL/dw, summed per index of each member, for one batch after the other, in eval mode

Choices are made on training or validation data: never pass the test split.
Raises: OptionError for evidence that was not given, ModelError when the network cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from .. import formats
from ..errors import OptionError
from ..methods.folded_rows import folded_rows
from ..methods.layer_inputs import Batch, evaluating
from ..methods.norm_pairs import norm_pairs
from .activations import Activations, group_activations
from .group import Group, Member


@dataclass(frozen=True, eq=False)
class Evidence:
    """A network and data; the network must not change while its evidence is used.

    groups: those to be scored. batches: (inputs, labels), labels None where no criterion needs them. example: one input
    batch for tracing; the first batch when not given. loss: (outputs, labels) -> scalar. max_batches: use so many at most.
    eps: |a| <= eps counts as zero in APoZ. seed: of the random control.
    """

    model: nn.Module
    groups: Sequence[Group]
    batches: Sequence[tuple[Batch, Tensor | None]] = ()
    example: Batch | None = None
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy
    max_batches: int | None = None
    eps: float = 0.0
    seed: int = 0

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """Weights and biases by plain name."""
        return formats.plain_parameters(self.model)

    def tensor(self, name: str) -> Tensor:
        """The parameter of that name, without gradient."""
        return self.parameters[name].detach()

    @cached_property
    def norms(self) -> dict[str, str]:
        """{path of a layer: path of the batch norm that stands alone behind it}."""
        if not any(isinstance(module, _BatchNorm) for module in self.model.modules()):
            return {}
        example = self.batches[0][0] if self.example is None and self.batches else self.example
        if example is None:
            raise OptionError(
                "The network has batch norms, and an example input is needed to see what they follow. Pass example= or "
                "batches= to Evidence."
            )
        return {layer: norm for norm, layer in norm_pairs(self.model, example).items()}

    def rows(self, member: Member) -> Tensor:
        """The weight of a member with role "out", scaled by the norm behind it."""
        layer, _, leaf = member.name.rpartition(".")
        if leaf != "weight" or layer not in self.norms:
            return self.tensor(member.name)
        return folded_rows(self.model, layer, self.norms[layer], dim=member.dim)[0]

    @cached_property
    def activations(self) -> dict[str, Activations]:
        """Figures of the inputs of each layer that reads one of the groups."""
        self._need_batches("activations")
        inputs = [batch for batch, _ in self.batches]
        return group_activations(self.model, self.groups, inputs, max_batches=self.max_batches, eps=self.eps)

    def inputs_of(self, layer: str) -> Activations:
        """Figures of the inputs of one layer."""
        if layer not in self.activations:
            raise OptionError(
                f"{layer}: reads none of the groups of this evidence. Name its group in groups=."
            )
        return self.activations[layer]

    @cached_property
    def salience(self) -> list[dict[tuple[str, int], Tensor]]:
        """One {(parameter, dim): sum of w dL/dw over the other dimensions, float64 [shape[dim]]} for each batch.

        For every member of the groups that is a parameter; dL/dw of the mean loss of the batch.
        """
        self._need_batches("gradients")
        own = dict(self.model.named_parameters(remove_duplicate=False))
        keys = {(m.name, m.dim): None for group in self.groups for m in group.members if m.name in own}
        names = list(dict.fromkeys(name for name, _ in keys))
        found = []
        with evaluating(self.model), torch.enable_grad(), _differentiable([own[n] for n in names]):
            for number, (batch, labels) in enumerate(islice(self.batches, self.max_batches)):
                if labels is None:
                    raise OptionError(f"Batch {number} has no labels, and gradients of the loss need them.")
                outputs = self.model(*(batch if isinstance(batch, tuple) else (batch,)))
                slopes = torch.autograd.grad(
                    self.loss(outputs, labels), [own[n] for n in names], materialize_grads=True
                )
                change = {
                    n: own[n].detach().double() * slope.double()
                    for n, slope in zip(names, slopes, strict=True)
                }
                found.append(
                    {
                        (n, d): change[n].movedim(d, 0).reshape(change[n].shape[d], -1).sum(dim=1).cpu()
                        for n, d in keys
                    }
                )
        return found

    def _need_batches(self, what: str) -> None:
        if not self.batches:
            raise OptionError(
                f"This criterion looks at {what}, and there is no data. Pass batches= to Evidence, e.g. of 512 training "
                "samples."
            )


@contextmanager
def _differentiable(parameters: Sequence[Tensor]) -> Iterator[None]:
    """requires_grad inside, and what it was afterwards: a frozen weight has a gradient too."""
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, was in zip(parameters, before, strict=True):
            parameter.requires_grad_(was)
