"""Auxiliary heads: small classifiers at intermediate depths, which tell what a network knows by then.

    head(x) = Linear(mean over positions(ReLU(BN(x))))        x [N, C, ...], logits [N, classes]

The layers of interest are cut into segments of about equal depth; a segment ends behind the block (the module that holds
the layer and is called itself) of its last layer, and the last segment with the network's own outputs. Heads learn on the
features of a network that stands still, and are thrown away after use.
Source: Zhuang et al., "Discrimination-aware channel pruning for deep neural networks", NeurIPS 2018, arXiv:1810.11809,
section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import OptionError
from .layer_inputs import Batch, called, evaluating, submodule, watch

Labelled = tuple[Batch, Tensor]


class Head(nn.Module):
    """Logits [N, classes] from features [N, C, ...]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(x.flatten(2) if x.dim() > 2 else x))
        logits: Tensor = self.linear(x.mean(2) if x.dim() > 2 else x)
        return logits


class Segments:
    """Ends of the segments in the order in which they run, "" for the network's own outputs, each with its head."""

    def __init__(self, heads: dict[str, Callable[[Tensor], Tensor]], order: list[str]) -> None:
        self.heads, self.order = heads, order

    def end_of(self, layer: str) -> str:
        """The end of the segment that a layer is in."""
        later = self.order[self.order.index(layer) :]
        return next((path for path in later if path in self.heads), "")


def ends_of(model: nn.Module, layers: Sequence[str], segments: int) -> list[str]:
    """Paths of the modules that end all segments but the last; `layers` in the order in which they run."""
    if segments < 1:
        raise OptionError(f"segments: {segments!r}; expected a whole number of at least 1.")
    ends: dict[str, None] = {}
    for segment in range(1, segments):
        at = len(layers) * segment // segments - 1
        if at >= 0:
            ends.setdefault(_block(model, layers[at]))
    return [end for end in ends if end]


def learn_heads(
    model: nn.Module,
    layers: Sequence[str],
    batches: Sequence[Labelled],
    *,
    ends: Sequence[str],
    epochs: int = 20,
    lr: float = 0.01,
    seed: int = 0,
) -> Segments:
    """Heads at `ends`, learnt with Adam on the features of `model`; memory: the features of one end on all batches."""
    inputs = [x for x, _ in batches]
    classes = _classes(model, batches)
    heads: dict[str, Callable[[Tensor], Tensor]] = {}
    for end in ends:
        submodule(model, end)
        features: list[Tensor] = []
        watch(model, [end], inputs, lambda _, x, y, into=features: into.append(y.clone()))  # type: ignore[misc]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(features[0].shape[1], classes).to(features[0].device)
            with torch.enable_grad():
                optimizer = torch.optim.Adam(head.parameters(), lr=lr)
                for at in torch.cat([torch.randperm(len(batches)) for _ in range(epochs)]).tolist():
                    optimizer.zero_grad()
                    F.cross_entropy(head(features[at]), batches[at][1].to(features[at].device)).backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        heads[end] = head.eval().requires_grad_(False)
    return Segments(heads, called(model, [*layers, *ends], inputs))


@torch.no_grad()
def _classes(model: nn.Module, batches: Sequence[Labelled]) -> int:
    x = batches[0][0]
    first = (x[:1],) if isinstance(x, Tensor) else tuple(part[:1] for part in x)
    with evaluating(model):
        logits: Tensor = model(*first)
    return logits.shape[-1]


def _block(model: nn.Module, layer: str) -> str:
    """The module around a layer that is called itself; the layer where that is the network."""
    parent, _, _ = layer.rpartition(".")
    while parent and isinstance(model.get_submodule(parent), (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        parent, _, _ = parent.rpartition(".")
    return parent or layer
