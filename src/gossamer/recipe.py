"""Recipe: YAML to a list of steps; names, options and order are checked before any work.

    model: lenet5                    # a built-in name, module:function or file.py:function
    weights: null                    # safetensors, a torch file, or a name in the data folder
    data: mnist
    seed: 0
    train: {epochs: 10}              # trained first when no weights are given
    steps:
      - Prune: {density: {conv1: 0.66, ip1: 0.08}}
      - Share: {bits: 5}
      - Finetune: {epochs: 3}

Steps and options are those of `gossamer.steps`; the namespace is the registry.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import yaml

from . import steps as step_classes
from .errors import OptionError, nearest
from .steps import Step, Train
from .steps.apply import check_order

KEYS = ("model", "weights", "data", "seed", "train", "steps", "threads", "keep_integers", "name")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, data, and the steps that make one small file of them. threads: of torch (None: one per core);
    a result repeats bit for bit only with the same number. keep_integers: they ship even where floats are faster."""

    model: str
    data: str
    steps: tuple[Step, ...]
    weights: str | None = None
    seed: int = 0
    train: Train | None = None
    threads: int | None = None
    keep_integers: bool = False
    name: str = "custom"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data, with defaults left out of the steps."""
        return {
            "name": self.name,
            "model": self.model,
            "weights": self.weights,
            "data": self.data,
            "seed": self.seed,
            "threads": self.threads,
            "keep_integers": self.keep_integers,
            "train": next(iter(self.train.to_dict().values())) if self.train else None,
            "steps": [step.to_dict() for step in self.steps],
        }

    def replace(self, **changes: Any) -> Recipe:
        """A copy with other values; None leaves a value as it is."""
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files(__package__) / "recipes"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load(source: str | Path | dict[str, Any], **overrides: Any) -> Recipe:
    """A recipe from a built-in name, a YAML file, or a mapping; `overrides` replace its top-level keys."""
    if isinstance(source, dict):
        return parse({**source, **overrides})
    text, name = _read(source)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise OptionError(
            f"{source}: a recipe is a mapping with {', '.join(KEYS)}; received {type(tree).__name__}."
        )
    return parse({"name": name, **tree, **overrides}, str(source))


def parse(tree: dict[str, Any], place: str = "recipe") -> Recipe:
    """Check a mapping and build its Recipe."""
    for key in tree:
        if key not in KEYS:
            raise OptionError(f"{place}: unknown key {key!r}. {nearest(str(key), KEYS)}")
    for key in ("model", "data"):
        if not isinstance(tree.get(key), str):
            raise OptionError(
                f"{place}: {key} must name a {key}; received {tree.get(key)!r}. Write {key}: NAME."
            )
    listed = tree.get("steps")
    if not isinstance(listed, list) or not listed:
        raise OptionError(f"{place}: steps must be a list of at least one step; received {listed!r}.")
    steps = tuple(parse_step(item, f"{place}, step {i}") for i, item in enumerate(listed, 1))
    check_order(steps)
    train = tree.get("train")
    try:
        return Recipe(
            model=tree["model"],
            data=tree["data"],
            steps=steps,
            weights=tree.get("weights"),
            seed=_whole(tree.get("seed", 0), "seed", place, low=0),
            train=_build(Train, train, f"{place}, train") if train is not None else None,
            threads=_whole(tree["threads"], "threads", place, low=1)
            if tree.get("threads") is not None
            else None,
            keep_integers=_flag(tree.get("keep_integers", False), "keep_integers", place),
            name=str(tree.get("name", "custom")),
        )
    except TypeError as error:
        raise OptionError(f"{place}: {error}") from error


def parse_step(item: Any, place: str = "step") -> Step:
    """`Prune: {sparsity: 0.9}` or a bare name."""
    if isinstance(item, Step):
        return item
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise OptionError(f"{place}: a step is written Name: {{option: value}}; received {item!r}.")
    [(name, options)] = item.items()
    if name not in step_classes.__all__:
        raise OptionError(f"{place}: unknown step {name!r}. {nearest(str(name), step_classes.__all__)}")
    step: Step = _build(getattr(step_classes, name), options or {}, f"{place} ({name})")
    return step


def _build(cls: type[Any], options: Any, place: str) -> Any:
    if not isinstance(options, dict):
        raise OptionError(f"{place}: options are written {{option: value}}; received {options!r}.")
    known = {f.name for f in dataclasses.fields(cls)}
    for option in options:
        if option not in known:
            raise OptionError(f"{place}: no option {option!r}. {nearest(str(option), known)}")
    try:
        return pydantic.TypeAdapter(cls).validate_python(options)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        received = "" if first["type"] == "value_error" else f"; received {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise OptionError(f"{place}{f', {where}' if where else ''}: {message}{received}") from error


def _read(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise OptionError(f"{source}: no such recipe file.")
        return path.read_text(encoding="utf-8"), path.stem.removesuffix(".lock")
    if str(source) not in names():
        raise OptionError(
            f"Unknown recipe {str(source)!r}. {nearest(str(source), names())} Or name a .yaml file."
        )
    return (resources.files(__package__) / "recipes" / f"{source}.yaml").read_text(encoding="utf-8"), str(
        source
    )


def _flag(value: Any, what: str, place: str) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{place}: {what} is true or false; received {value!r}.")
    return value


def _whole(value: Any, what: str, place: str, *, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise OptionError(f"{place}: {what} is a whole number, at least {low}; received {value!r}.")
    return value
