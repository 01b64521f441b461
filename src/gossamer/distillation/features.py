"""FeatureTargets: the outputs of chosen layers follow those of the same layers in a bigger network.

    loss = base + weight * sum over layers of mean (student - teacher)^2 / mean teacher^2

The hints of FitNets where widths agree, so that no regressor is needed: after a cut inside the blocks of a residual network
every block still gives as many channels as before. Each layer's error is relative to the teacher's mean square, so one
weight serves layers of any size.
Source: Romero et al., "FitNets", ICLR 2015, arXiv:1412.6550, equation 3 (with all layers and the outputs at once).
Raises: OptionError for a layer that is not there, ModelError where the two networks' features differ in shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError, OptionError, nearest
from .logits import SoftTargets


class FeatureTargets:
    """A loss for `fit`: `base` plus the relative squared errors of features; layers are names or globs of modules."""

    def __init__(self, base: SoftTargets, layers: Sequence[str], *, weight: float = 1.0) -> None:
        if not 0 < weight < math.inf:
            raise OptionError(f"feature targets: weight is {weight}, expected a positive number.")
        names = [name for name, _ in base.teacher.named_modules() if name]
        self.layers: list[str] = []
        for pattern in layers:
            matched = [name for name in names if fnmatchcase(name, pattern)]
            if not matched:
                raise OptionError(
                    f"feature targets: the teacher has no layer {pattern!r}. {nearest(pattern, names)}"
                )
            self.layers += [name for name in matched if name not in self.layers]
        self.base, self.weight = base, weight
        self._seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Take down the features of both networks while `model` trains; `fit` calls this."""
        known = dict(model.named_modules())
        missing = [name for name in self.layers if name not in known]
        if missing:
            raise OptionError(
                f"feature targets: the network has no layer {missing[0]!r}. {nearest(missing[0], known)}"
            )
        self._seen = {name: ([], []) for name in self.layers}
        teacher = dict(self.base.teacher.named_modules())
        with ExitStack() as hooks:
            for name, (student_saw, teacher_saw) in self._seen.items():
                kept = _keep(name, student_saw, lambda: model.training)
                hooks.callback(known[name].register_forward_hook(kept).remove)
                kept = _keep(name, teacher_saw, lambda: True)
                hooks.callback(teacher[name].register_forward_hook(kept).remove)
            yield
        self._seen = {}

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor, model: nn.Module) -> Tensor:
        loss = self.base(outputs, labels, inputs, model)
        for name, (mine, wanted) in self._seen.items():
            for student, teacher in zip(mine, wanted, strict=True):
                loss = loss + self.weight * _relative_error(name, student, teacher.detach())
            mine.clear()
            wanted.clear()
        return loss


def _relative_error(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape:
        raise ModelError(
            f"feature targets: {name} gives {tuple(student.shape)} in the network and {tuple(teacher.shape)} in its teacher. "
            "Name layers whose widths were not cut."
        )
    student, teacher = student.float(), teacher.float()
    error: Tensor = (student - teacher).square().mean()
    return error / teacher.square().mean().clamp_min(1e-12)


def _keep(name: str, seen: list[Tensor], wanted: Callable[[], bool]) -> Callable[..., None]:
    """A forward hook that keeps the output, unless the network is being validated."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if not wanted():
            return
        if not isinstance(output, Tensor):
            raise ModelError(
                f"feature targets: {name} gives {type(output).__name__}, expected a layer that gives one tensor."
            )
        seen.append(output)

    return hook
