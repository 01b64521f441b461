"""AdaRound: whether each weight is rounded down or up is learnt, such that its layer keeps its outputs.

    W_q = s clip(floor(W / s) + h(V), n, p)             h(V) = clip((zeta - gamma) sigmoid(V) + gamma, 0, 1)
    min_V  E |f(W x + b) - f(W_q x_q + b_q)|^2 / E_nearest + lambda mean (1 - |2 h(V) - 1|^beta)

W, b, x: of the float network; x_q: inputs from the prefix quantized so far; f: the identity, or the ReLU that follows.
zeta = 1.1, gamma = -0.1. V starts where h is the fraction of W / s, so the start is the float weight. The penalty rests
during the first `warmup` of the steps, then beta falls from 20 to 2 on a line; at the end h becomes [V >= 0]. The grid
(s, and codes n..p) is that of the weight's Uniform format and stays; pruned places stay zero.

Differs from the paper: a step sees `rows` sampled output positions instead of whole pictures (the same mean, at a cost
that does not grow with the picture). The error is divided by that of nearest rounding and the penalty is a mean, so
lambda needs no tuning to a layer's units or size. lambda = 10 and lr = 0.05 make nearly every h binary within 500 to
1000 steps, where the paper takes 10,000. Where nearest rounding has the smaller error, it is kept.
Source: Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or down? Adaptive rounding for post-training
quantization", ICML 2020, arXiv:2004.10568, equations 21 to 25.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import formats
from ..errors import FormatError, OptionError, TrainingError
from .layer_inputs import Batch, reconstructable, sample
from .weight_grid import Rounding, WeightGrid, write_

ZETA, GAMMA = 1.1, -0.1
BETA_START, BETA_END = 20.0, 2.0
EVALUATED = 8192  # positions at a time when the whole error is computed


def adaround(
    model: nn.Module,
    reference: nn.Module,
    name: str,
    batches: Sequence[Batch],
    *,
    relu: bool = False,
    steps: int = 1000,
    rows: int = 1024,
    positions: int = 32,
    lr: float = 0.05,
    penalty: float = 10.0,
    warmup: float = 0.2,
    seed: int = 0,
) -> Rounding:
    """Choose the codes of the weight `name` of `model`, in place; `reference` is its float twin.

    relu: a ReLU follows this layer directly. positions: places per picture that are sampled. The layers of a network
    are rounded in the order in which they run.
    Raises: FormatError without a Uniform grid or for another kind of layer, TrainingError for inputs that are not finite.
    """
    if steps < 1 or rows < 1 or positions < 1 or not 0 <= warmup < 1:
        raise OptionError(
            f"AdaRound: steps {steps}, rows {rows}, positions {positions}, warmup {warmup}; expected at least 1 of "
            "each and 0 <= warmup < 1."
        )
    layer = name.rpartition(".")[0]
    grid = WeightGrid.of(model, name)
    module, twin = reconstructable(model, layer), reconstructable(reference, layer)
    weight = formats.plain_parameters(reference)[name].detach()
    if weight.shape != grid.latent.shape:
        raise FormatError(
            f"{name}: the reference holds {tuple(weight.shape)}, the model {tuple(grid.latent.shape)}; expected the "
            "same network before quantization."
        )
    inputs = sample(model, [layer], batches, positions=positions, seed=seed)[layer]
    floats = sample(reference, [layer], batches, positions=positions, seed=seed)[layer]
    shape = (len(inputs), -1, inputs.shape[2])  # [g, O/g, K]
    wide = weight.reshape(shape)
    targets = floats @ wide.transpose(1, 2) + _bias(twin, weight, len(inputs))
    aim = Reconstruction(inputs, targets, _bias(module, weight, len(inputs)), relu)
    scale, kept, nearest = (t.reshape(shape) for t in (grid.scale, grid.kept, grid.nearest(weight)))
    before = aim.error(nearest * scale)
    if not math.isfinite(before):
        raise TrainingError(
            f"{name}: the outputs of this layer are not finite on the calibration data. Repair the layers before it."
        )
    codes, after = nearest, before
    if before > 0:
        options = Schedule(steps, rows, lr, penalty, warmup, seed)
        learnt = learn_rounding(wide, scale, kept, grid.clip, aim, before, options)
        error = aim.error(learnt * scale)
        if error < before:
            codes, after = learnt, error
    write_(model, name, codes.reshape(weight.shape))
    return Rounding(name, before, after, int((codes != nearest).sum()))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the rounding is learnt; see `adaround`."""

    steps: int
    rows: int
    lr: float
    penalty: float
    warmup: float
    seed: int

    def beta(self, step: int) -> float | None:
        """The exponent of the penalty at a step; None while the penalty rests."""
        start = int(self.warmup * self.steps)
        if step < start:
            return None
        return BETA_START + (BETA_END - BETA_START) * (step - start) / max(1, self.steps - 1 - start)


@dataclass(frozen=True)
class Reconstruction:
    """Inputs [g, M, K] of a layer, and the outputs [g, M, O/g] (before f) it should have; bias [g, 1, O/g]."""

    inputs: Tensor
    targets: Tensor
    bias: Tensor
    relu: bool

    def loss(self, weight: Tensor, at: Tensor) -> Tensor:
        """Squared error of f's output, summed over channels, mean over the positions `at`."""
        outputs, targets = self.inputs[:, at] @ weight.transpose(1, 2) + self.bias, self.targets[:, at]
        if self.relu:
            outputs, targets = outputs.relu(), targets.relu()
        return (outputs - targets).square().sum() / len(at)

    @torch.no_grad()
    def error(self, weight: Tensor) -> float:
        """The loss over all positions."""
        count = self.inputs.shape[1]
        parts = torch.split(torch.arange(count), EVALUATED)
        return sum(float(self.loss(weight, at)) * len(at) for at in parts) / count


def learn_rounding(
    weight: Tensor,
    scale: Tensor,
    kept: Tensor,
    clip: Callable[[Tensor], Tensor],
    aim: Reconstruction,
    unit: float,
    by: Schedule,
) -> Tensor:
    """Codes [g, O/g, K] for `weight` on the grid `scale`; `unit` is the error that counts as 1."""
    floor = (weight / scale).floor()
    fraction = torch.where(kept, weight / scale - floor, 0.5)
    latent = torch.nn.Parameter(-torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1))
    optimizer = torch.optim.Adam([latent], lr=by.lr)
    generator = torch.Generator().manual_seed(by.seed)
    for step in range(by.steps):
        at = torch.randint(aim.inputs.shape[1], (by.rows,), generator=generator)
        with torch.enable_grad():
            h = rectified(latent)
            rounded = clip(floor + h) * scale * kept
            loss = aim.loss(rounded, at) / unit
            beta = by.beta(step)
            if beta is not None:
                loss = loss + by.penalty * (1 - (2 * h - 1).abs().pow(beta)).mean()
            (latent.grad,) = torch.autograd.grad(loss, [latent])
        optimizer.step()
    return torch.where(kept, clip(floor + (latent.detach() >= 0)), 0)


def rectified(latent: Tensor) -> Tensor:
    """h(V): a sigmoid stretched to [gamma, zeta] and cut to [0, 1]."""
    return (latent.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _bias(module: nn.Module, weight: Tensor, groups: int) -> Tensor:
    bias = module.bias
    if not isinstance(bias, Tensor):
        bias = weight.new_zeros(len(weight))
    return bias.detach().reshape(groups, 1, -1)
