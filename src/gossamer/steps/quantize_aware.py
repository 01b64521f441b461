"""QuantizeAware: train the network while its weights and activations are rounded.

Weights get a trained format (LSQ, QIL, DoReFa: `methods`), activations a trained quantizer (LSQ, QIL, PACT, DoReFa, or the
name of their class: `quantizers`), both started from the present network and a few batches. Tensors that only additions
read, and those of the first and the last layer, keep `edges` bits: they are few, and much depends on them. DoReFa's weights
have 7 at most, since int8 does not hold the 256 values that its 8 bits stand for. Batch norms keep training; `FreezeNorms`
folds them afterwards into the grids, exactly. Weight decay acts on weights and on the clips of PACT, as its paper has it,
but not on steps and intervals.

A second QuantizeAware with fewer bits goes on from the first one's weights (progressive quantization).
Sources: the files of the methods; QIL, arXiv:1808.05779, section 3.3 (progressive, first and last layer).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from .. import formats, methods, quantizers
from ..errors import OptionError, StepError, nearest
from ..formats import MaskedUniform, Sparse, Uniform, WeightFormat
from ..quantizers import Place, Placement, Quantizer
from .base import Context, Edit, choose, layer_paths
from .calibrate import attach, described, inputs, observe, rebuild
from .train import Finetune

JOINED = "LearnedStep"  # what only additions read may be negative, which the unsigned quantizers refuse


@dataclass(frozen=True, kw_only=True)
class QuantizeAware(Finetune):
    """Train at `bits` bits per weight and `activation_bits` (default: the same) per activation.

    weights, activations: names of a weight format and of a quantizer; weight_options, activation_options: theirs;
    edges: bits of the first and last layer and of tensors that only additions read; samples: inputs that start the
    quantizers; layers, skip: names or globs.
    """

    attaches: ClassVar[bool] = True

    bits: int = 8
    activation_bits: int | None = None
    weights: str = "LSQ"
    activations: str = "LearnedStep"
    weight_options: Mapping[str, Any] = field(default_factory=dict)
    activation_options: Mapping[str, Any] = field(default_factory=dict)
    edges: int = 8
    samples: int = 256
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bits", "edges"):
            if not (isinstance(getattr(self, name), int) and 2 <= getattr(self, name) <= 8):
                raise OptionError(f"QuantizeAware: {name} is {getattr(self, name)!r}, expected 2 to 8.")
        most = self._weight_format(self.bits).int8_bits
        if self.bits > most:
            raise OptionError(
                f"QuantizeAware: weights {self.weights} of {self.bits} bits do not fit int8, and the layers would run in "
                f"floats. Use bits: {most}, or weights: LSQ."
            )
        self._quantizer(self.activation_bits or self.bits)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        batches = list(inputs(context, self.samples, "QuantizeAware"))
        quantizers.detach(model)
        calls = quantizers.record(model, (batches[0][:1],))
        placement = quantizers.place(calls, skip=layer_paths(self.skip, model))
        chosen = choose(model, self.layers, self.skip, context)
        names = [f"{layer}.weight" for layer in placement.layers if f"{layer}.weight" in chosen]
        if not names:
            raise StepError("QuantizeAware found no convolution or linear layer to round.")
        first, last = names[0], names[-1]
        edges = min(self.edges, self._weight_format(self.bits).int8_bits)
        for name in names:
            self._round(model, name, edges if name in (first, last) else self.bits)
        edit = described(placement, self._choice(placement, last.removesuffix(".weight")))
        attach(model, edit)
        context.edits.append(edit)
        observe(model, batches)
        return super().apply(model, context)

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        return rebuild(model, edits)

    def _choice(self, placement: Placement, last: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """The quantizer of each place: the chosen one where a product reads it, else one of `edges` bits."""
        chosen: dict[str, tuple[str, dict[str, Any]]] = {}
        bits = self.activation_bits or self.bits
        kind = type(self._quantizer(bits)).__name__
        for place in placement.places:
            if (
                _reads(place)
                and place.kind != "input"
                and not any(feed.endswith(f" {last}") for feed in place.feeds)
            ):
                chosen[place.name] = (kind, {"bits": bits, **self.activation_options})
            else:
                chosen[place.name] = (JOINED, {"bits": self.edges, "signed": None})
        for name, (kind, options) in chosen.items():
            if kind == JOINED:
                chosen[name] = (kind, {"signed": None, **options})
        return chosen

    def _round(self, model: nn.Module, name: str, bits: int) -> None:
        """Give a weight its format; one that a step like this already rounded starts again from what was trained."""
        entry = formats.attached(model).get(name)
        wanted = self._weight_format(bits)
        if entry is None or isinstance(entry.format, Sparse):
            formats.refine(model, name, wanted)
            return
        if not isinstance(entry.format, type(wanted)):
            raise StepError(
                f"{name} has the format {type(entry.format).__name__}, which {self.weights} cannot go on from. Leave it "
                "out with skip, or put QuantizeAware before that step."
            )
        if isinstance(entry.format, MaskedUniform) and type(wanted) is Uniform:
            wanted = MaskedUniform(**vars(wanted))  # what was pruned stays zero
        latent = formats.parts_of(model, name)[0].detach().clone()
        module, leaf = formats.locate(model, name)
        formats.detach(module, leaf)
        getattr(module, leaf).data = latent
        formats.attach(module, leaf, wanted)

    def _weight_format(self, bits: int) -> WeightFormat:
        known = {
            name: value
            for name in methods.__all__
            if isinstance(value := getattr(methods, name), type)
            and issubclass(value, WeightFormat)
            and "bits" in inspect.signature(value).parameters  # those of one or two bits: Binarize
        } | {"Uniform": Uniform}
        if self.weights not in known:
            raise OptionError(
                f"QuantizeAware: unknown weights {self.weights!r}. {nearest(self.weights, known)}"
            )
        made: WeightFormat = _made(
            known[self.weights], {"bits": bits, **self.weight_options}, "weight_options"
        )
        return made

    def _quantizer(self, bits: int) -> Quantizer:
        known = {
            name: value
            for name in quantizers.__all__
            if isinstance(value := getattr(quantizers, name), type)
            and issubclass(value, Quantizer)
            and value is not Quantizer
        }
        known |= {kind.method: kind for kind in known.values() if kind.method}
        if self.activations not in known:
            hint = nearest(self.activations, known)
            raise OptionError(f"QuantizeAware: unknown activations {self.activations!r}. {hint}")
        made: Quantizer = _made(
            known[self.activations], {"bits": bits, **self.activation_options}, "activation_options"
        )
        return made


def _reads(place: Place) -> bool:
    """Whether a convolution, linear layer or product reads the tensor."""
    return any(feed.split(" ")[0] in ("conv", "linear", "matmul") for feed in place.feeds)


def _made(kind: Any, options: Mapping[str, Any], what: str) -> Any:
    known = list(inspect.signature(kind).parameters)
    for name in options:
        if name not in known:
            raise OptionError(
                f"QuantizeAware: {what} of {kind.__name__}: no option {name!r}. {nearest(name, known)}"
            )
    return kind(**options)
