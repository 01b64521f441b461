"""Channel criteria: how much a unit of a group matters; pure functions (group, evidence) -> float64 [size].

A higher score is kept longer. W: rows that make a unit (role "out", a batch norm behind them folded in), V: columns that
read it (role "in"), a: its activation where it is read, L: the loss, ~: a mean over the layers (or tensors) of that role.

    l1, l2              ~ |W_u|_1, ~ |W_u|_2                        Li et al. 2017
    outgoing, product   ~ |V_u|_2, and l2 times it
    group-l2            ~ |w_u|_2^2 over all weights of the group and the scales of its norms, divided by the group's mean:
                        comparable across groups                    Fang et al. 2023
    apoz                1 - APoZ, the share of values that are not zero; needs a ReLU, or eps
                                                                    Hu et al. 2016
    mean-activation     ~ E |a_u|
    variance            ~ Var(a_u): what removal costs when the bias takes up the mean (`compensation`)
    taylor              E_b |sum w dL/dw| over all parameters that go with the unit; b: batches
                                                                    Molchanov et al. 2019, arXiv:1906.10771
    taylor-activation   E_b |sum a dL/da|: the same over V alone, because sum V dL/dV = sum a dL/da for a linear reader
                                                                    Molchanov et al. 2017, arXiv:1611.06440
    scale               ~ |gamma_u| of the norms                    Liu et al. 2017 (network slimming)
    random              uniform, from the seed and the group's name: the control

A unit of several channels takes sums of |w|^p over all of them and means of activations. Norms of different layers are
not comparable: `normalize` divides a group's scores by their mean or maximum before one ranking over all groups.
Differs from the papers: the Taylor criteria take |.| per batch, where that of 2017 does per sample and position.
Raises: OptionError for unknown criteria, and for evidence that is missing or does not fit.
Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning filters for efficient ConvNets", ICLR 2017, arXiv:1608.08710; Hu et
al., arXiv:1607.03250; Liu et al., ICCV 2017, arXiv:1708.06519; Fang et al., CVPR 2023, arXiv:2301.12900, section 3.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from ..errors import OptionError, nearest
from .activations import Activations, per_unit, readers
from .evidence import Evidence
from .group import IN, OUT, Group, Member

Criterion = Callable[[Group, Evidence], Tensor]
NORMALIZATIONS = ("none", "mean", "max")


def score(group: Group, evidence: Evidence, criterion: str, *, normalize: str = "none") -> Tensor:
    """The scores of the group's units under the named criterion, float64 [size].

    normalize: "none", or divide by the "mean" or "max" of the group, so that groups are comparable.
    """
    if criterion not in CHANNEL_CRITERIA:
        raise OptionError(f"unknown channel criterion {criterion!r}. {nearest(criterion, CHANNEL_CRITERIA)}")
    if normalize not in NORMALIZATIONS:
        raise OptionError(
            f"normalize is {normalize!r}, expected one of {', '.join(map(repr, NORMALIZATIONS))}."
        )
    scores = CHANNEL_CRITERIA[criterion](group, evidence)
    if normalize == "none":
        return scores
    unit = scores.mean() if normalize == "mean" else scores.max()
    return scores / unit if unit > 0 else scores


def l1(group: Group, evidence: Evidence) -> Tensor:
    """Sum of |w| over the rows that make the unit."""
    return _row_norm(group, evidence, 1)


def l2(group: Group, evidence: Evidence) -> Tensor:
    """Euclidean norm of the rows that make the unit."""
    return _row_norm(group, evidence, 2)


def outgoing(group: Group, evidence: Evidence) -> Tensor:
    """Euclidean norm of the columns that read the unit."""
    return _mean_over(group, IN, lambda m: _powers(evidence.tensor(m.name), m, group.size, 2).sqrt())


def product(group: Group, evidence: Evidence) -> Tensor:
    """Norm of what makes the unit times the norm of what reads it."""
    return l2(group, evidence) * outgoing(group, evidence)


def group_l2(group: Group, evidence: Evidence) -> Tensor:
    """Mean of squared norms over every weight and norm scale of the group, divided by the group's mean."""
    members = [m for m in group.members if m.name in evidence.parameters and not m.name.endswith("bias")]
    parts = [(m, _powers(evidence.tensor(m.name), m, group.size, 2)) for m in members]
    importance = _mean(group, parts, "weights")
    return importance / importance.mean() if importance.mean() > 0 else importance


def apoz(group: Group, evidence: Evidence) -> Tensor:
    """1 - the average share of zeros."""
    if evidence.eps == 0:
        for path, member in readers(evidence.model, group).items():
            lowest = evidence.inputs_of(path).lowest.cpu().reshape(-1, len(member.units)).amin(dim=0)
            if bool((lowest[member.units.cpu() >= 0] < 0).any()):
                raise OptionError(
                    f"{group.name}: APoZ counts zeros behind a ReLU, but {path} receives negative values. Set eps > 0 (|a| <= "
                    "eps counts as zero), or use 'variance'."
                )
    return _mean_activation(group, evidence, lambda a: 1 - a.zeros)


def mean_activation(group: Group, evidence: Evidence) -> Tensor:
    """Mean of |a|."""
    return _mean_activation(group, evidence, lambda a: a.mean_abs)


def variance(group: Group, evidence: Evidence) -> Tensor:
    """Variance of a."""
    return _mean_activation(group, evidence, lambda a: a.variance)


def taylor(group: Group, evidence: Evidence) -> Tensor:
    """First-order change of the loss when all parameters that go with the unit become zero."""
    return _taylor(group, evidence, [m for m in group.members if m.name in evidence.parameters])


def taylor_activation(group: Group, evidence: Evidence) -> Tensor:
    """First-order change of the loss when the unit's activation becomes zero."""
    return _taylor(group, evidence, list(group.of(IN)))


def scale(group: Group, evidence: Evidence) -> Tensor:
    """|gamma| of the norms over the unit's channels."""
    parts = []
    for member in group.members:
        path, _, leaf = member.name.rpartition(".")
        if leaf == "weight" and isinstance(evidence.model.get_submodule(path), _NormBase):
            gamma = evidence.tensor(member.name).abs()
            parts.append((member, _scatter(gamma, member, group.size) / _owned(member, group.size)))
    return _mean(group, parts, "a batch or instance norm with a scale")


def random(group: Group, evidence: Evidence) -> Tensor:
    """Uniform in (0, 1]."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{evidence.seed} {group.name}".encode()))
    return 1 - torch.rand(group.size, generator=generator, dtype=torch.float64)


CHANNEL_CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "outgoing": outgoing,
    "product": product,
    "group-l2": group_l2,
    "apoz": apoz,
    "mean-activation": mean_activation,
    "variance": variance,
    "taylor": taylor,
    "taylor-activation": taylor_activation,
    "scale": scale,
    "random": random,
}


def _row_norm(group: Group, evidence: Evidence, power: int) -> Tensor:
    def norm(member: Member) -> Tensor:
        total = _powers(evidence.rows(member), member, group.size, power)
        return total.sqrt() if power == 2 else total

    return _mean_over(group, OUT, norm)


def _mean_activation(group: Group, evidence: Evidence, figure: Callable[[Activations], Tensor]) -> Tensor:
    found = readers(evidence.model, group)
    parts = [(m, per_unit(figure(evidence.inputs_of(path)), m, group.size)) for path, m in found.items()]
    return _mean(group, parts, "a linear layer or convolution that reads it")


def _taylor(group: Group, evidence: Evidence, members: list[Member]) -> Tensor:
    total = torch.zeros(group.size, dtype=torch.float64)
    for batch in evidence.salience:
        change = torch.zeros(group.size, dtype=torch.float64)
        for member in members:
            if (member.name, member.dim) not in batch:
                raise OptionError(
                    f"{group.name}: {member.name} has no gradient here. Name the group in groups= of the evidence, and choose "
                    "channels before formats are attached."
                )
            change += _scatter(batch[member.name, member.dim], member, group.size)
        total += change.abs()
    return total / len(evidence.salience)


def _mean_over(group: Group, role: str, of: Callable[[Member], Tensor]) -> Tensor:
    return _mean(group, [(member, of(member)) for member in group.of(role)], f"a weight with role {role!r}")


def _mean(group: Group, parts: Iterable[tuple[Member, Tensor]], wanted: str) -> Tensor:
    """The mean over the tensors that hold a unit: one that lacks it does not count for it."""
    total = torch.zeros(group.size, dtype=torch.float64)
    count = torch.zeros_like(total)
    for member, values in parts:
        total += values
        count += (_owned(member, group.size, least=0) > 0).double()
    if not bool(count.any()):
        raise OptionError(
            f"{group.name}: this criterion needs {wanted}, and the group has none. Use another."
        )
    return total / count.clamp_min(1)


def _powers(values: Tensor, member: Member, size: int, power: int) -> Tensor:
    """Sum of |w|^power over everything that goes with each unit: float64 [size]."""
    return _scatter(_per_index(values.abs().pow(power), member), member, size)


def _per_index(values: Tensor, member: Member) -> Tensor:
    """Summed over all dimensions but the member's."""
    return values.double().movedim(member.dim, 0).reshape(len(member.units), -1).sum(dim=1)


def _scatter(values: Tensor, member: Member, size: int) -> Tensor:
    units = member.units.cpu()
    owned = units >= 0
    total = torch.zeros(size, dtype=torch.float64)
    return total.index_add_(0, units[owned], values.double().cpu()[owned])


def _owned(member: Member, size: int, *, least: int = 1) -> Tensor:
    """How many indices of the member each unit owns."""
    units = member.units.cpu()
    return torch.bincount(units[units >= 0], minlength=size).clamp_min(least)
