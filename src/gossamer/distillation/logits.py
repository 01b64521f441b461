"""SoftTargets: train a student on the softened outputs of a teacher (knowledge distillation).

    L = (1 - weight) * H(y, softmax(s)) + weight * T^2 * KL(softmax(t / T) || softmax(s / T))
    s, t: logits of student and teacher [N, classes];  KL summed over classes, averaged over N

T^2 keeps the balance of the two terms when T changes: the gradient of KL alone shrinks as 1 / T^2. The
teacher sees the same input tensor as the student (same augmentation), in evaluation mode, without gradients,
and is not part of the student. `weight` is the share of the soft term; the share of the labels is 1 - weight.
Raises: OptionError for options out of range; ModelError when the outputs do not have the same shape.
Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2014, arXiv:1503.02531, section
2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer.errors import ModelError, OptionError


def soft_target_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of logits [N, classes]; 0 when they agree."""
    soft = F.log_softmax(student / temperature, 1)
    target = F.log_softmax(teacher / temperature, 1)
    return temperature**2 * F.kl_div(soft, target, reduction="batchmean", log_target=True)


class SoftTargets:
    """A loss for `fit`: called with (outputs, labels, inputs, model)."""

    def __init__(self, teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.9) -> None:
        if not 0 < temperature < math.inf:
            raise OptionError(f"soft targets: temperature is {temperature}, expected a positive number.")
        if not 0 <= weight <= 1:
            raise OptionError(
                f"soft targets: weight is {weight}, expected 0 (labels alone) to 1 (teacher alone)."
            )
        self.teacher, self.temperature, self.weight = teacher, temperature, weight

    def __call__(self, outputs: Any, labels: Tensor, inputs: Tensor, model: nn.Module) -> Tensor:
        if any(module.training for module in self.teacher.modules()):
            self.teacher.eval()
        for parameter in self.teacher.parameters():
            if parameter.device != inputs.device:
                self.teacher.to(inputs.device)
            break
        with torch.no_grad():
            target = self.teacher(inputs)
        for name, given in (("teacher", target), ("student", outputs)):
            if not isinstance(given, Tensor) or given.ndim != 2 or given.shape != target.shape:
                shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
                raise ModelError(
                    f"soft targets: the {name} returned {shape}, expected logits [{len(labels)}, classes] "
                    f"like the other "
                    f"network. Use a teacher and a student with the same classes."
                )
        hard = F.cross_entropy(outputs, labels)
        return (1 - self.weight) * hard + self.weight * soft_target_loss(
            outputs, target.to(outputs.dtype), temperature=self.temperature
        )
