"""Less Is More: proximal steps on the weights of whole neurons, until many are exactly zero.

    min  loss + sum over neurons n of g(w_n),      forward: optimizer steps on the loss,      backward: prox of g

    group       g = lambda |w_n|_2, w_n with its bias, so that a zero neuron gives 0
    low_rank    g = (mu / M) sum over the M unfoldings |W_(m)|_*: each is thresholded, and the results are averaged

W is the weight of one neuron (a filter [I, kh, kw]) or of the layer ([O, I, kh, kw]); a mode of size 1 has no unfolding. Of
both, low rank comes first. A neuron whose weights vanish is removed with the inputs that read it.

The average over unfoldings is the paper's approximation of the prox: exact when there is one unfolding. Trains from
scratch or from a trained network, with SGD, and without weight decay on these layers. `every`: steps between two backward
steps, each then that much longer.
Source: Zhou, Alvarez, Porikli, "Less is more: towards compact CNNs", ECCV 2016, doi:10.1007/978-3-319-46493-0_40.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import formats
from ..errors import OptionError
from .proximal import group_threshold, singular_threshold, step_sizes


@dataclass
class LessIsMore:
    """For `AfterStep`: the backward step on the neurons of `layers` (linear layers and convolutions, by path).

    group: lambda. low_rank: mu. of: "neuron" or "layer", whose tensor has low rank.
    """

    layers: Sequence[str]
    group: float = 0.0
    low_rank: float = 0.0
    of: str = "neuron"
    every: int = 1
    steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.group < 0 or self.low_rank < 0 or self.group + self.low_rank == 0:
            raise OptionError(
                f"less is more: group {self.group!r}, low_rank {self.low_rank!r}; expected numbers of at least 0, one of "
                "them positive."
            )
        if self.of not in ("neuron", "layer"):
            raise OptionError(f"less is more: of is {self.of!r}, expected 'neuron' or 'layer'.")
        if self.every < 1:
            raise OptionError(f"less is more: every is {self.every!r}, expected at least 1.")

    @torch.no_grad()
    def __call__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.steps += 1
        if self.steps % self.every:
            return
        sizes = step_sizes(optimizer)
        for layer in self.layers:
            weight, bias = _parameters(model, layer)
            tau = sizes[weight] * self.every
            new = weight.detach()
            if self.low_rank:
                new = low_rank_threshold(new, self.low_rank * tau, of=self.of)
            if self.group:
                new = _neuron_threshold(new, bias, self.group * tau)
            weight.copy_(new)


def low_rank_threshold(weight: Tensor, amount: float, *, of: str = "neuron") -> Tensor:
    """The mean over the M unfoldings of singular thresholding by amount / M; a vector is one unfolding."""
    tensors = weight if of == "neuron" else weight[None]
    modes = [dim for dim in range(1, tensors.dim()) if tensors.shape[dim] > 1] or [1]
    if len(modes) == 2:
        modes = modes[:1]  # the two unfoldings of a matrix are each other's transpose
    total = torch.zeros_like(tensors)
    for mode in modes:
        front = tensors.movedim(mode, 1)
        folded = singular_threshold(
            front.flatten(2) if front.dim() > 2 else front[:, :, None], amount / len(modes)
        )
        total += folded.reshape(front.shape).movedim(1, mode)
    return (total / len(modes)).reshape(weight.shape)


def zero_neurons(model: nn.Module, layers: Sequence[str]) -> dict[str, Tensor]:
    """{layer: bool [O]}: neurons whose weights and bias are all exactly zero."""
    found = {}
    for layer in layers:
        weight, bias = _parameters(model, layer)
        zero = (weight.detach() == 0).flatten(1).all(dim=1)
        found[layer] = zero if bias is None else zero & (bias.detach() == 0)
    return found


def _neuron_threshold(weight: Tensor, bias: Tensor | None, amount: float) -> Tensor:
    """Threshold neurons together with their biases (which change in place); the new weight."""
    flat = weight.flatten(1)
    if bias is None:
        return group_threshold(flat, amount, 1).reshape(weight.shape)
    together = group_threshold(torch.cat([flat, bias[:, None]], dim=1), amount, 1)
    bias.copy_(together[:, -1])
    return together[:, :-1].reshape(weight.shape)


def _parameters(model: nn.Module, layer: str) -> tuple[Tensor, Tensor | None]:
    module, _ = formats.locate(model, f"{layer}.weight")
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None:
        raise OptionError(
            f"{layer}: its weight carries a format. Train neurons away before formats are attached."
        )
    return weight, bias
