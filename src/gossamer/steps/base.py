"""Step: one decision of a recipe, a frozen set of options with `apply(model, context) -> model`.

A step takes a model and returns a model. It never writes files, prints, or reads global state; what it needs
comes in the Context, and what it has to tell (skipped layers, training history, structural edits) goes there.
A step that would touch nothing raises StepError.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from .. import formats
from ..data import Data
from ..errors import OptionError, StepError, nearest
from ..training import Checkpoint, History, fit

Edit = dict[str, Any]


@dataclass
class Context:
    """What a step may use, and where it leaves what it has to tell.

    teacher: the uncompressed network, for soft targets; trial: try everything on one batch and keep nothing;
    folder: where training may keep its checkpoints (None: nowhere).
    """

    data: Data | None = None
    example: Any = None
    seed: int = 0
    teacher: nn.Module | None = None
    folder: Path | None = None
    trial: bool = False
    progress: bool = False
    skipped: list[dict[str, str]] = field(default_factory=list)
    history: list[History] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def skip(self, name: str, reason: str) -> None:
        """Record that a weight was left as it is, and why."""
        self.skipped.append({"name": name, "reason": reason})

    def need_data(self, step: str) -> Data:
        """The data, or an error that says who needs it."""
        if self.data is None:
            raise StepError(
                f"{step} needs data to train or measure on. Pass data=gs.load_data(...), or drop the step."
            )
        return self.data

    def train(self, model: nn.Module, place: str, *, epochs: int, **options: Any) -> None:
        """Train in place, resuming from the checkpoint of `place` if there is one."""
        data = self.need_data(place)
        checkpoint = Checkpoint(self.folder / place) if self.folder is not None and not self.trial else None
        limits: dict[str, Any] = {"max_batches": 1} if self.trial else {}
        history = fit(
            model,
            data,
            epochs=min(epochs, 1) if self.trial else epochs,
            seed=self.seed,
            checkpoint=checkpoint,
            progress=self.progress and not self.trial,
            **options,
            **limits,
        )
        self.history.append(history)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Base of every step; options are keyword-only fields with defaults."""

    structural: ClassVar[bool] = False  # changes modules, so it must come before formats are attached
    attaches: ClassVar[bool] = False  # gives weights a format

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """The model after this decision; in place or new, the returned one counts."""
        raise NotImplementedError

    def rebuild(self, model: nn.Module, edits: list[Edit]) -> nn.Module:
        """Repeat the structural edits on a fresh model (for resuming); nothing to do for most steps."""
        return model

    def to_dict(self) -> dict[str, Any]:
        """`{"Prune": {"sparsity": 0.9}}`, defaults left out."""
        options = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != _default(f)
        }
        return {type(self).__name__: options}


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions, linear layers and embeddings, decoded, by plain name."""
    layers = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    return {n: w for n, w in formats.plain_parameters(model).items() if n.removesuffix(".weight") in layers}


def choose(
    model: nn.Module, layers: Iterable[str] | None, skip: Iterable[str], context: Context
) -> dict[str, Tensor]:
    """The weights a step works on: those of `layers` (names or globs; None: all), less `skip`; tied ones are skipped."""
    known = weights(model) if layers is None else formats.plain_parameters(model)
    chosen = known if layers is None else {n: known[n] for pattern in layers for n in match(pattern, known)}
    left_out = {n for pattern in skip for n in match(pattern, known)}
    owners: dict[int, list[str]] = {}
    for name, weight in formats.plain_parameters(model).items():
        owners.setdefault(id(weight), []).append(name)
    result = {}
    for name, weight in chosen.items():
        if name in left_out:
            context.skip(name, "left out by the recipe")
        elif len(twins := owners.get(id(weight), [])) > 1:
            context.skip(name, f"shares its memory with {next(twin for twin in twins if twin != name)}")
        elif weight.is_floating_point():
            result[name] = weight
    return result


def match(pattern: str, known: Mapping[str, Any]) -> list[str]:
    """The parameter names that a layer name (`fc1`), parameter name (`fc1.weight`) or glob (`conv*`, `*.bias`) means."""
    if not isinstance(pattern, str):
        raise OptionError(f"A layer is named by a string; received {pattern!r}.")
    names = [n for n in known if n == pattern or n == f"{pattern}.weight"]
    if not names and "*" in pattern:
        names = [n for n in known if fnmatch.fnmatchcase(n, pattern)]
        names = names or [n for n in known if fnmatch.fnmatchcase(n.removesuffix(".weight"), pattern)]
    if not names:
        layers = [n.removesuffix(".weight") for n in known]
        raise OptionError(f"No layer matches {pattern!r}. {nearest(pattern, layers)}")
    return names


def per_layer(option: Any, names: Iterable[str], what: str, *, known: Iterable[str] = ()) -> dict[str, Any]:
    """Spread an option over layers: one value for all, or a mapping from names or globs to values.

    A pattern must match one of `names`, or of the `known` names that are not asked for.
    """
    names = list(names)
    if not isinstance(option, Mapping):
        return dict.fromkeys(names, option)
    everything = dict.fromkeys([*names, *known])
    spread: dict[str, Any] = {}
    for pattern, value in cast(Mapping[str, Any], option).items():
        try:
            matched = match(pattern, everything)
        except OptionError as error:
            raise OptionError(f"{what}: {error}") from None
        spread.update(dict.fromkeys(matched, value))
    return {name: spread[name] for name in names if name in spread}


def layer_paths(patterns: Iterable[str], model: nn.Module) -> set[str]:
    """The paths of the layers that names or globs of layers or weights mean."""
    known = weights(model)
    return {name.removesuffix(".weight") for pattern in patterns for name in match(pattern, known)}
