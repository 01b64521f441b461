"""SimulateQuantization: train the network as the integers that it will become.

    convolution and batch norm     one layer; its folded weight is rounded at every step, on a grid that reaches its largest
                                   value (methods.jacob.FoldedLayer)
    other layers                   rounded the same way (methods.jacob.CurrentRange)
    activations                    on affine grids that follow the batches' smallest and largest values; they pass as floats
                                   in the first part `delay` of the steps
    norms                          follow the batches, but stand still in the last part `frozen` of the steps

What comes out is what Calibrate and Quantize leave: plain layers on Uniform grids, with the norms folded away. A weight that
already has a format (Sparse, Codebook) gets a fixed grid inside it, and its norm trains on; FreezeNorms folds it then.
Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018, arXiv:1712.05877, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import formats, quantizers
from ..errors import OptionError, StepError
from ..formats import Uniform
from ..methods import jacob
from ..quantizers import Place
from ..training.delayed_rounding import DelayedRounding
from .base import Context, Edit, choose, layer_paths
from .calibrate import attach, described, inputs, observe, rebuild
from .train import Finetune


@dataclass(frozen=True, kw_only=True)
class SimulateQuantization(Finetune):
    """Train at `bits` bits per weight and `activation_bits` (default: the same) per activation.

    granularity: one scale per "tensor", as in the paper, or per output "channel"; momentum: weight of a batch in the ranges
    of activations; delay, frozen: parts of the training, 0 to 1; samples: inputs that start the ranges; layers, skip: names
    or globs. The inputs of the network keep 8 bits, as pixels have.
    """

    attaches: ClassVar[bool] = True

    bits: int = 8
    activation_bits: int | None = None
    granularity: str = "tensor"
    momentum: float = 0.01
    delay: float = 0.2
    frozen: float = 0.3
    samples: int = 256
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bits", "activation_bits"):
            bits = getattr(self, name)
            if bits is not None and not (isinstance(bits, int) and 2 <= bits <= 8):
                raise OptionError(f"SimulateQuantization: {name} is {bits!r}, expected 2 to 8.")
        if self.granularity not in ("tensor", "channel"):
            raise OptionError(
                f"SimulateQuantization: granularity is 'tensor' or 'channel'; received {self.granularity!r}."
            )
        if self.patience is not None:
            raise OptionError(
                "SimulateQuantization: patience could keep an epoch before activations were rounded. Leave it out."
            )
        quantizers.Affine(**self._affine())
        DelayedRounding.over(1, delay=self.delay, frozen=self.frozen)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        batches = list(inputs(context, self.samples, "SimulateQuantization"))
        quantizers.detach(model)
        placement = quantizers.place(
            quantizers.record(model, (batches[0][:1],)), skip=layer_paths(self.skip, model)
        )
        chosen = choose(model, self.layers, self.skip, context)
        rounded = [layer for layer in placement.layers if f"{layer}.weight" in chosen]
        if not rounded:
            raise StepError("SimulateQuantization found no convolution or linear layer to round.")
        context.edits += self._fold(model, batches[0][:2], rounded)
        edit = described(
            placement, {place.name: ("Affine", self._affine(place)) for place in placement.places}
        )
        attach(model, edit)
        context.edits.append(edit)
        observe(model, batches)
        super().apply(model, context)
        jacob.finish(model)
        quantizers.set_state(model, "quantize")
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        return rebuild(model, edits)

    def options(self, context: Context) -> dict[str, Any]:
        count = len(context.need_data("SimulateQuantization").train)
        steps = 1 if context.trial else self.epochs * -(-count // self.batch_size)
        delayed = DelayedRounding.over(steps, delay=self.delay, frozen=self.frozen)
        return {**super().options(context), "callbacks": [delayed]}

    def _fold(self, model: nn.Module, example: Any, rounded: Sequence[str]) -> list[Edit]:
        """Give every weight its grid, folded where a norm follows; the edits that repeat what happened to the norms."""
        grid = Uniform(bits=self.bits, granularity=self.granularity)
        norms = any(isinstance(module, _BatchNorm) for module in model.modules())
        pairs = jacob.foldable(model, example) if norms else {}
        edits: list[Edit] = [
            {"norm": norm, "channels": model.get_submodule(norm).num_features, "layer": layer}
            for norm, layer in pairs.items()
        ]
        jacob.fold_pairs(model, pairs, format=None)
        folded = jacob.folded_layers(model)
        present = formats.attached(model)
        for layer in rounded:
            if layer in folded:
                folded[layer].format = grid
            elif f"{layer}.weight" in present:
                formats.refine(model, f"{layer}.weight", grid)
            else:
                formats.attach(model.get_submodule(layer), "weight", jacob.CurrentRange(**vars(grid)))
        return edits

    def _affine(self, place: Place | None = None) -> dict[str, Any]:
        """Options of the quantizer at a place; inputs of the network are 8 bits wide, as pixels are."""
        bits = 8 if place is not None and place.kind == "input" else self.activation_bits or self.bits
        return {"bits": bits, "momentum": self.momentum}
