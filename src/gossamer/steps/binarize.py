"""Binarize: train the network while its weights, and on request its activations, are signs or three values.

    weights       Binary, BinaryConnect, BNN, XNOR, BiReal: 1 bit      Ternary, TWN, TTQ: 2 bits, fewer when coded
                  MultiBinary, ABCNet: `bases` bits
    activations   null: as they are      "sign": blocks.Sign      "multi-sign": blocks.MultiSign
    padding       "zero": as it is       "one": convolutions of signs by signs pad with +1 instead of 0

Every ReLU, ReLU6 and Hardtanh module that a layer of signs reads becomes the chosen activation. Latent weights are
clipped to the limits of their format after each step (training.ClipLatent), and the statistics of batch norms are
measured anew at the end: those of the last steps belong to weights that were still flipping. The first and the last
layer stay as they are, unless `edges` or `layers` say otherwise; embeddings do in any case. Zeros around an image of signs
are a third value; +1 is a sign, and BinaryConv has nothing to correct at the border.
Sources: the files of the methods (methods.binary_connect, bnn, xnor_net, bireal, twn, ttq, abc_net).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import blocks, formats, methods
from ..blocks.surround import surround_, zeros_around
from ..errors import ModelError, OptionError, StepError, nearest
from ..formats import Binary, MultiBinary, Ternary, WeightFormat
from ..methods import TTQ
from ..methods.layer_inputs import called, watch
from ..pruning.readers import readers
from ..training import ClipLatent, recalibrate_norms
from .base import Context, Edit, choose, weights
from .train import Finetune

FAMILIES = (Binary, MultiBinary, Ternary, TTQ)
SIGNS: dict[str, type[nn.Module]] = {"sign": blocks.Sign, "multi-sign": blocks.MultiSign}
PADDINGS = ("zero", "one")
REPLACED = (nn.ReLU, nn.ReLU6, nn.Hardtanh)


@dataclass(frozen=True, kw_only=True)
class Binarize(Finetune):
    """Train with weights of one or two bits, and activations of signs.

    weights, weight_options: a format and its options; activations: null, "sign" or "multi-sign", with
    activation_options (`slope`; `bases`); padding: "zero" or "one"; edges: the first and the last layer too;
    layers, skip: names or globs, and `layers` alone decides where it is given.
    """

    attaches: ClassVar[bool] = True

    weights: str = "XNOR"
    weight_options: Mapping[str, Any] = field(default_factory=dict)
    activations: str | None = None
    activation_options: Mapping[str, Any] = field(default_factory=dict)
    padding: str = "zero"
    edges: bool = False
    layers: Sequence[str] | None = None
    skip: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._format()
        if self.activations is not None:
            self._activation()
        elif self.activation_options:
            raise OptionError(
                f"Binarize: activation_options {dict(self.activation_options)} were received, but activations is null. "
                f"Choose one of {', '.join(SIGNS)}, or leave them out."
            )
        if self.padding not in PADDINGS:
            raise OptionError(
                f"Binarize: unknown padding {self.padding!r}. {nearest(str(self.padding), PADDINGS)}"
            )
        if self.padding == "one" and self.activations != "sign":
            raise OptionError(
                f"Binarize: padding 'one' puts the sign +1 around images of signs, but activations is {self.activations!r}; "
                "expected 'sign'. Use activations: sign, or padding: zero."
            )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if self.epochs == 0:
            raise StepError(
                "Binarize needs epochs of at least 1: signs of trained weights are far from them, and only training makes "
                "up for it."
            )
        data = context.need_data("Binarize")
        names = self._chosen(model, context)
        if not names:
            raise StepError(
                "Binarize found no layer between the first and the last one. Use edges: true, or name layers."
            )
        edits = [] if self.activations is None else self._edits(model, names, context)
        for name in names:
            formats.refine(model, name, self._format())
        self.rebuild(model, edits)
        if self.padding == "one":
            padded = self._paddings(model, names, context)
            self.rebuild(model, padded)
            edits += padded
        context.edits.extend(edits)
        context.train(model, "binarize", **self.options(context), callbacks=[ClipLatent()])
        recalibrate_norms(model, data, batches=1 if context.trial else 50, seed=context.seed)
        return model

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        for edit in edits:
            if "padded" in edit:
                surround_(_convolution(model, edit["padded"]), edit["around"], 1.0)
                continue
            parent, _, leaf = edit["activation"].rpartition(".")
            made = SIGNS[edit["kind"]](**edit["options"])
            setattr(model.get_submodule(parent), leaf, made.train(model.training))
        return model

    def _chosen(self, model: nn.Module, context: Context) -> list[str]:
        """The names of the weights that become signs."""
        names = list(choose(model, self.layers, self.skip, context))
        if self.layers is not None:
            return names
        layers = [n for n in weights(model) if not isinstance(_owner(model, n), nn.Embedding)]
        left: dict[str, str] = {}
        if not self.edges:
            left = dict.fromkeys(
                [*layers[:1], *layers[-1:]], "the first or the last layer, and edges is false"
            )
        left |= {n: "an embedding, whose rows are looked up" for n in names if n not in layers}
        for name in names:
            if name in left:
                context.skip(name, left[name])
        return [name for name in names if name not in left]

    def _edits(self, model: nn.Module, names: Sequence[str], context: Context) -> list[Edit]:
        """One edit for each activation that a layer of signs reads, shared modules under each of their names."""
        found = [
            path
            for path, m in model.named_modules(remove_duplicate=False)
            if path and isinstance(m, REPLACED)
        ]
        if not found:
            raise StepError(
                f"Binarize: activations is {self.activations!r}, but the network has no ReLU, ReLU6 or Hardtanh module to "
                "replace. A function such as F.relu inside forward cannot be: make it an nn.ReLU, or use activations: null."
            )
        replaced = self._read_by_signs(model, found, names, context)
        for path in found:
            if path not in replaced:
                context.skip(path, "only layers that stay as they are read this activation")
        return [
            {"activation": path, "kind": self.activations, "options": dict(self.activation_options)}
            for path in found
            if path in replaced
        ]

    @staticmethod
    def _paddings(model: nn.Module, names: Sequence[str], context: Context) -> list[Edit]:
        """One edit for each convolution of signs that puts zeros around an image of signs."""
        around: dict[str, tuple[int, int, int, int]] = {}
        for path in (name.rpartition(".")[0] for name in names):
            module = model.get_submodule(path)
            zeros = zeros_around(module) if isinstance(module, nn.Conv2d) else None
            if zeros is not None and any(zeros):
                around[path] = zeros
        example = torch.from_numpy(context.need_data("Binarize").batch(2))
        fed: dict[str, bool] = {}

        def see(path: str, x: Tensor, _: Tensor) -> None:
            fed[path] = fed.get(path, True) and bool((x.abs() == 1).all())

        if running := called(model, list(around), [example]):
            watch(model, running, [example], see)
        for path in around:
            if not fed.get(path):
                context.skip(path, "keeps its zero padding: what it reads are no signs")
        found = [{"padded": path, "around": list(zeros)} for path, zeros in around.items() if fed.get(path)]
        if not found:
            raise StepError(
                "Binarize: padding is 'one', but no Conv2d that is binarized puts zeros around an image of signs. "
                "Use padding: zero."
            )
        return found

    @staticmethod
    def _read_by_signs(
        model: nn.Module, found: Sequence[str], names: Sequence[str], context: Context
    ) -> set[str]:
        """Activations that a chosen layer reads, or of which no reader is known; all in a network that cannot be traced."""
        signs = {name.rpartition(".")[0] for name in names}
        example = torch.from_numpy(context.need_data("Binarize").batch(2))
        try:
            read = readers(model, example, found)
        except ModelError:
            return set(found)
        kept = {model.get_submodule(path) for path, layers in read.items() if layers and not layers & signs}
        return {path for path in found if model.get_submodule(path) not in kept}

    def _format(self) -> WeightFormat:
        exported = [getattr(module, name) for module in (formats, methods) for name in module.__all__]
        known = {
            kind.__name__: kind for kind in exported if isinstance(kind, type) and issubclass(kind, FAMILIES)
        }
        if self.weights not in known:
            raise OptionError(
                f"Binarize: unknown weights {self.weights!r}. {nearest(str(self.weights), known)}"
            )
        made: WeightFormat = _made(known[self.weights], self.weight_options, "weight_options")
        return made

    def _activation(self) -> nn.Module:
        if self.activations not in SIGNS:
            raise OptionError(
                f"Binarize: unknown activations {self.activations!r}. {nearest(str(self.activations), SIGNS)}"
            )
        made: nn.Module = _made(SIGNS[self.activations], self.activation_options, "activation_options")
        return made


def _owner(model: nn.Module, name: str) -> nn.Module:
    return formats.locate(model, name)[0]


def _convolution(model: nn.Module, path: str) -> nn.Conv2d:
    module = model.get_submodule(path)
    assert isinstance(module, nn.Conv2d)
    return module


def _made(kind: Any, options: Mapping[str, Any], what: str) -> Any:
    known = list(inspect.signature(kind).parameters)
    for name in options:
        if name not in known:
            raise OptionError(
                f"Binarize: {what} of {kind.__name__}: no option {name!r}. {nearest(str(name), known)}"
            )
    return kind(**options)
