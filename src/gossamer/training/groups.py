"""Groups: parameters that do not learn as weights do get optimizer groups of their own.

    weights (all that nothing is said of)     lr          weight decay
    a tensor with Learning(rate, decay)       rate lr     weight decay if `decay`, else none

Formats say it of their parts and quantizers of their parameters (`learning`): a step, a scale or the ends of an interval
are not weights, and pulling them towards zero moves the grid. The schedule multiplies the rates of all groups alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gossamer import formats
from gossamer.formats.base import Learning
from gossamer.quantizers import Quantizer


def learning(model: nn.Module) -> dict[int, Learning]:
    """How the parameters that are not weights learn, by id."""
    kinds: dict[int, Learning] = {}
    for name, entry in formats.attached(model).items():
        kinds |= {
            id(part): kind
            for part, kind in zip(formats.parts_of(model, name), entry.format.all_learning(), strict=True)
        }
    for module in model.modules():
        if isinstance(module, Quantizer):
            kinds |= {id(getattr(module, name)): kind for name, kind in module.learning().items()}
    return kinds


def groups(model: nn.Module, given: Sequence[Any], lr: float) -> list[Any]:
    """Optimizer groups over `given` parameters; groups among them stay as they are. Weights come first."""
    kinds = learning(model)
    ready = [item for item in given if not isinstance(item, Tensor)]
    found: dict[Learning, list[Tensor]] = {}
    for item in given:
        if isinstance(item, Tensor):
            found.setdefault(kinds.get(id(item), Learning()), []).append(item)
    made: list[Any] = []
    for kind in sorted(found, key=lambda kind: (kind != Learning(), kind)):
        group: dict[str, Any] = {"params": found[kind]}
        if kind.rate != 1:
            group["lr"] = lr * kind.rate
        if not kind.decay:
            group["weight_decay"] = 0.0
        made.append(group)
    return [*ready, *made]
