"""Apply a list of steps to a model: the Python way to what a recipe does.

On success the model itself is changed (and returned); when a step fails the model is left exactly as it was.
Later steps refine what earlier ones left, so the order is the recipe.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from .. import formats
from ..data import Data, load_data
from ..errors import GossamerError, OptionError, StepError
from .base import Context, Step

Model = TypeVar("Model", bound=nn.Module)


def apply(
    model: Model,
    steps: Sequence[Step],
    data: Data | str | None = None,
    example: Any = None,
    *,
    seed: int = 0,
    progress: bool = False,
) -> Model:
    """Apply `steps` in order; the present model is the teacher of Finetune. data: a Data object or its spec."""
    if isinstance(steps, Step):
        steps = [steps]
    check_order(steps, model)
    work = copy.deepcopy(model)
    context = Context(
        data=load_data(data) if isinstance(data, str) else data,
        example=example,
        seed=seed,
        teacher=teacher_of(model),
        progress=progress,
    )
    for index, step in enumerate(steps, 1):
        work = apply_one(work, step, context, index)
    model.__class__ = work.__class__
    model.__dict__.clear()
    model.__dict__.update(work.__dict__)
    return model


def apply_one(model: Model, step: Step, context: Context, index: int) -> Model:
    """One step; an error gains its place: `step 2 (Share): ...`."""
    try:
        return step.apply(model, context)  # type: ignore[return-value]  # a step returns the kind of model it got
    except GossamerError as error:
        raise type(error)(f"step {index} ({type(step).__name__}): {error}") from error


def teacher_of(model: nn.Module) -> nn.Module:
    """A frozen copy of the model as it is, without formats, in eval mode."""
    teacher = copy.deepcopy(formats.baked(model)).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


def check_order(steps: Sequence[Step], model: nn.Module | None = None) -> None:
    """Structural steps come before any step that attaches formats."""
    for step in steps:
        if not isinstance(step, Step):
            raise OptionError(
                f"A list of steps holds steps such as gs.Prune(sparsity=0.9); received {step!r}."
            )
    formatted = "the model already carries formats" if model is not None and formats.attached(model) else None
    for index, step in enumerate(steps, 1):
        name = type(step).__name__
        if step.structural and formatted:
            raise StepError(
                f"step {index} ({name}) changes modules, but {formatted}. Put {name} before every step that compresses weights."
            )
        if step.attaches:
            formatted = formatted or f"step {index} ({name}) already attached formats"
