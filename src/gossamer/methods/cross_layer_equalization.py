"""Cross-layer equalization: scales move between layers until both sides of every channel have the same range.

    r1_i = max |W1[i]|      r2_i = max |W2[:, i]|       s_i = sqrt(r1_i / r2_i)
    W1[i] /= s_i            b1_i /= s_i                 W2[:, i] *= s_i

For a pair W1 -> f -> W2 with f(s x) = s f(x) the function of the float network stays; afterwards r1_i = r2_i =
sqrt(r1_i r2_i), which makes the best of one grid per tensor. Pairs are what `layer_graph` finds: ReLU, PReLU, pooling and
flattening may stand between, depthwise layers make two pairs. All pairs are repeated until no scale moves by more than
`tolerance`. A channel that is all zero on either side is left alone. ReLU6 caps at 6 whatever the scale: pairs through it
are skipped, or with relu6="replace" it becomes ReLU first, which does change the float network.

High biases, given the mean and deviation of a layer's outputs (`layer_inputs.moments`, or beta and |gamma| of the
norm that was folded into it; by the layer's path, as they were before this call):

    c_i = max(0, mean_i - 3 std_i)     b1 -= c     b2 += sum over the kernel of W2 c

which is the same function wherever W1 x + b1 >= c. Differs from the paper: a pair whose second layer pads its input
with zeros keeps its biases, because the padding would have to become c.
Source: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization and bias
correction", ICCV 2019, arXiv:1906.04721, sections 4.1 and 4.1.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import OptionError, StepError, nearest
from .layer_graph import LayerGraph, Link, layer_graph
from .layer_inputs import Batch, Moments

MAX_ROUNDS = 1000
KEEPS_SHIFTS = frozenset(  # f(x + c) = f(x) + c where x >= 0
    (
        "relu",
        "relu6",
        "prelu",
        "leaky_relu",
        "dropout",
        "contiguous",
        "clone",
        "mean",
        "flatten",
        "view",
        "reshape",
    )
) | {f"{kind}_pool{n}d" for kind in ("max", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)}


@dataclass(frozen=True)
class Pair:
    """One equalized pair, by weight names; all tensors float64 [C], C the channels between.

    scale: what the first layer was divided by. before, after: (r1, r2), the ranges on either side. absorbed: what was
    taken from the first bias, None where nothing was asked for or possible.
    """

    first: str
    second: str
    through: tuple[str, ...]
    scale: Tensor
    before: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor]
    absorbed: Tensor | None = None


@dataclass(frozen=True)
class Equalization:
    """The pairs; how many rounds were made; the ReLU6 modules that became ReLU; {layer: why it starts no pair}."""

    pairs: tuple[Pair, ...]
    rounds: int
    replaced: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def equalize(
    model: nn.Module,
    example: Batch,
    *,
    relu6: str = "skip",
    statistics: Mapping[str, Moments] | None = None,
    tolerance: float = 1e-3,
) -> Equalization:
    """Equalize all pairs of `model` in place; its norms are folded and its weights carry no format yet.

    example: one batch of inputs, for tracing. relu6: "skip" or "replace". statistics: {path of a first layer: moments
    of its outputs}; its high bias is absorbed.
    Raises: StepError when there is no pair, OptionError for unknown options or layers, ModelError from tracing.
    """
    if relu6 not in ("skip", "replace"):
        raise OptionError(f"equalize: relu6 is 'skip' or 'replace'; received {relu6!r}.")
    if not tolerance > 0:
        raise OptionError(f"equalize: tolerance is a positive number; received {tolerance!r}.")
    graph = layer_graph(model, example)
    links, replaced, skipped = _usable(graph, relu6)
    if not links:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(skipped.items())[:5])
        raise StepError(
            f"Cross-layer equalization found no pair of layers ({reasons or 'no convolution or linear layer'}). Fold "
            "the norms first (FreezeNorms), before any format is attached, or drop the step."
        )
    known = [link.first.path for link in links]
    for path in statistics or {}:
        if path not in known:
            raise OptionError(
                f"equalize: statistics of {path!r}, which starts no pair. {nearest(path, known)}"
            )
    parameters, names = dict(model.named_parameters()), {n for link in links for n in _names(link)}
    values = {name: parameters[name].double().clone(memory_format=torch.contiguous_format) for name in names}
    before = [_ranges(link, values) for link in links]
    scales, rounds = _balance(links, values, tolerance)
    after = [_ranges(link, values) for link in links]
    absorbed = [
        _absorb(link, values, (statistics or {}).get(link.first.path), scale, skipped)
        for link, scale in zip(links, scales, strict=True)
    ]
    replace_relu6_(model, replaced)
    for name, value in values.items():
        parameters[name].copy_(value)
    pairs = tuple(
        Pair(link.first.weight, link.second.weight, link.through, scale, start, end, high)
        for link, scale, start, end, high in zip(links, scales, before, after, absorbed, strict=True)
    )
    return Equalization(pairs, rounds, replaced, skipped)


def replace_relu6_(model: nn.Module, paths: tuple[str, ...] | list[str]) -> None:
    """Let the modules at `paths` be ReLU; what `equalize` reports as replaced, for repeating it on a fresh model."""
    for path in paths:
        parent, _, leaf = path.rpartition(".")
        old = model.get_submodule(path)
        new = nn.ReLU(inplace=bool(getattr(old, "inplace", False))).train(old.training)
        setattr(model.get_submodule(parent), leaf, new)


def _usable(graph: LayerGraph, relu6: str) -> tuple[list[Link], tuple[str, ...], dict[str, str]]:
    """The links to work on, the ReLU6 modules to replace for them, and why others are left out."""
    skipped = dict(graph.loose)
    uses = [path for link in graph.links for path in link.relu6]
    free = {path for path in uses if path and uses.count(path) == graph.relu6_calls.get(path)}
    links, replaced = [], {}
    for link in graph.links:
        if link.relu6 and relu6 == "skip":
            skipped[link.first.path or link.first.weight] = "feeds ReLU6; relu6='replace' makes it ReLU"
        elif not free.issuperset(link.relu6):
            skipped[link.first.path or link.first.weight] = (
                "feeds a ReLU6 that cannot be replaced (functional, or also used elsewhere)"
            )
        else:
            links.append(link)
            replaced.update(dict.fromkeys(link.relu6))
    return links, tuple(replaced), skipped


def _balance(links: list[Link], values: dict[str, Tensor], tolerance: float) -> tuple[list[Tensor], int]:
    """Equalize `values` in place; the total scale of every link, and the number of rounds."""
    totals = [torch.ones(len(values[link.first.weight]), dtype=torch.float64) for link in links]
    for count in range(1, MAX_ROUNDS + 1):
        moved = 0.0
        for link, total in zip(links, totals, strict=True):
            r1, r2 = _ranges(link, values)
            scale = torch.where((r1 > 0) & (r2 > 0), (r1 / r2).sqrt(), 1.0)
            _scale(link, values, scale)
            total *= scale
            moved = max(moved, float(scale.log().abs().max()))
        if moved <= tolerance:
            return totals, count
    return totals, MAX_ROUNDS


def _names(link: Link) -> list[str]:
    layers = (link.first, link.second)
    return [name for layer in layers for name in (layer.weight, layer.bias) if name is not None]


def _ranges(link: Link, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(r1, r2) of the channels between, float64 [C]."""
    out = values[link.first.weight].flatten(1).abs().amax(dim=1)
    into = _wide(values[link.second.weight], link.second.groups).abs().amax(dim=(1, 3))
    return out, into.reshape(len(out), link.spread).amax(dim=1)


def _scale(link: Link, values: dict[str, Tensor], scale: Tensor) -> None:
    first, second = values[link.first.weight], values[link.second.weight]
    first /= scale.reshape(-1, *[1] * (first.dim() - 1))
    if link.first.bias is not None:
        values[link.first.bias] /= scale
    _wide(second, link.second.groups).mul_(_per_input(link, scale)[:, None, :, None])


def _wide(weight: Tensor, groups: int) -> Tensor:
    """[g, O/g, I/g, kernel]."""
    return weight.view(groups, len(weight) // groups, weight.shape[1], -1)


def _per_input(link: Link, channels: Tensor) -> Tensor:
    """A number per channel between, for every input of the second layer: [g, I/g]."""
    return channels.repeat_interleave(link.spread).reshape(link.second.groups, -1)


def _absorb(
    link: Link, values: dict[str, Tensor], given: Moments | None, scale: Tensor, skipped: dict[str, str]
) -> Tensor | None:
    """Move the high part of the first bias into the second; `given`: moments before equalization."""
    if given is None:
        return None
    if link.first.bias is None or link.second.bias is None:
        reason = "a layer of the pair has no bias"
    elif link.second.padded:
        reason = "the second layer pads with zeros"
    elif not KEEPS_SHIFTS.issuperset(link.through):
        reason = f"{', '.join(link.through)} between the layers does not keep shifts"
    else:
        high = ((given.mean.double() - 3 * given.std.double()) / scale).clamp_min(0)
        values[link.first.bias] -= high
        wide = _wide(values[link.second.weight], link.second.groups).sum(dim=3)
        values[link.second.bias] += (wide @ _per_input(link, high)[:, :, None]).reshape(-1)
        return high
    skipped[link.first.path] = f"its high bias stays: {reason}"
    return None
