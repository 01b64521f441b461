"""Calibrate: round the activations, so that the network runs on integers.

Where quantizers go is read off one forward (quantizers.placement); their grids come from what an observer saw on
samples of the training split, in eval mode and without augmentation. Norms are folded first (FreezeNorms). Weights are
the matter of `Quantize`; a layer runs on integers when both are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import quantizers
from ..errors import GossamerError, OptionError, StepError
from ..quantizers import Place, Placement, Quantizer, observers
from ..quantizers.calls import Calls
from .base import Context, Edit, Step, layer_paths
from .freeze_norms import FreezeNorms

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Calibrate(Step):
    """Activations of `bits` bits on affine grids.

    observer: minmax, moving-average, percentile, mse or entropy; samples: inputs of the training split that it sees;
    symmetric: zero point in the middle; skip: layers (names or globs) that stay float.
    """

    bits: int = 8
    observer: str = "minmax"
    samples: int = 512
    symmetric: bool = False
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 8):
            raise OptionError(f"Calibrate: bits is {self.bits!r}, expected 2 to 8.")
        if not (isinstance(self.samples, int) and self.samples >= 1):
            raise OptionError(f"Calibrate: samples is {self.samples!r}, expected at least 1.")
        observers.find(self.observer)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        batches = list(inputs(context, self.samples, "Calibrate"))
        if can_freeze(model):
            if context.example is None:
                context.example = batches[0][:2]
            model = FreezeNorms().apply(model, context)
        else:
            for path in (name for name, module in model.named_modules() if isinstance(module, _BatchNorm)):
                context.skip(path, "keeps no running statistics, so it stays float")
        calls = _recorded(model, batches[0][:1])
        left_out = layer_paths(self.skip, model)
        placement = quantizers.place(calls, skip=left_out)
        for name, reason in placement.skipped.items():
            context.skip(name or "*", reason)
        if not placement.layers:
            raise StepError("Calibrate found no convolution or linear layer that could run on integers.")
        options = {"bits": self.bits, "symmetric": self.symmetric, "observer": self.observer}
        edit = described(placement, {place.name: ("Affine", options) for place in placement.places})
        attach(model, edit)
        context.edits.append(edit)
        observe(model, batches)
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        return rebuild(model, edits)


def can_freeze(model: nn.Module) -> bool:
    """Whether there is a batch norm that FreezeNorms can make constant."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return any(norm.running_mean is not None for norm in norms)


def _recorded(model: nn.Module, x: Tensor) -> Calls:
    try:
        return quantizers.record(model, (x,))
    except GossamerError:
        raise
    except Exception as error:  # forward is the user's code, which may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StepError(
            f"Calibrate: the network does not run on a calibration input {list(x.shape)}: {said}. Check the shape that it "
            "expects, and the data's preprocess."
        ) from error


def described(placement: Placement, made: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Edit:
    """A placement and its quantizers (class and options by place) as plain data."""
    quantizer = {name: {"class": kind, "options": dict(options)} for name, (kind, options) in made.items()}
    return {"placement": asdict(placement), "quantizers": quantizer}


def attach(model: nn.Module, edit: Edit) -> None:
    """Put the described quantizers on a network, in the place of those it has."""
    tree, made = edit["placement"], edit["quantizers"]
    places = tuple(Place(**{**place, "feeds": tuple(place["feeds"])}) for place in tree["places"])
    placement = Placement(places, tuple(tree["layers"]), dict(tree["skipped"]), tuple(tree["kinds"]))

    def make(place: Place) -> Quantizer:
        wanted = made[place.name]
        made_here: Quantizer = getattr(quantizers, wanted["class"])(**wanted["options"])
        return made_here

    quantizers.detach(model)
    quantizers.attach(model, placement, make)


def rebuild(model: nn.Module, edits: list[Edit]) -> nn.Module:
    """Repeat folded norms and quantizers on a fresh network; their numbers come with its state."""
    model = FreezeNorms().rebuild(model, [edit for edit in edits if "norm" in edit])
    for edit in edits:
        if "placement" in edit:
            attach(model, edit)
    return model


def inputs(context: Context, samples: int, step: str) -> Iterator[Tensor]:
    """Batches of training inputs, the same for the same seed, as the model takes them."""
    data = context.need_data(step)
    count = min(8 if context.trial else samples, len(data.train))
    rows = np.sort(np.random.default_rng(context.seed).choice(len(data.train), count, replace=False))
    for start in range(0, count, BATCH):
        batch = torch.from_numpy(data.preprocess(data.train.inputs[rows[start : start + BATCH]]))
        if batch.is_floating_point() and not bool(torch.isfinite(batch).all()):
            raise StepError(
                f"{step}: a calibration input is NaN or infinite (samples {start} to {start + len(batch) - 1} of "
                f"{count}). Repair the data."
            )
        yield batch


@torch.no_grad()
def observe(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Let every quantizer see the batches, then fix its grid."""
    model.eval()
    quantizers.set_state(model, "observe")
    for batch in batches:
        model(batch)
    for name, quantizer in quantizers.quantizers(model).items():
        try:
            quantizer.settle()
        except GossamerError as error:
            raise StepError(f"Calibrate: the tensor {name}: {error}") from error
