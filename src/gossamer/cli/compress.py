"""`gossamer compress`: a model, data and a recipe in; model.goss and its report out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError, nearest
from .output import Json, console, emit, notice, progress_line


def compress(
    model: Annotated[
        str | None,
        typer.Argument(help="A built-in name, module:function or file.py:function; default: the recipe's."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A safetensors or torch file, or a name in the data folder.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="mnist, fashion-mnist, cifar10, fsdd, digits, folder:DIR or module:function."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A built-in recipe or a YAML file.")] = "deep-compression",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STEP.OPTION=VALUE", help="Change one option of a step; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: runs/MODEL-RECIPE.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in recipes and exit.")] = False,
    json: Json = False,
) -> None:
    """Compress a network into one file, model.goss, with a report beside it.

    An interrupted run resumes when the same command is given again.

    Example: [bold]gossamer compress lenet5 --data digits --recipe demo --set Finetune.epochs=2[/bold]
    """
    from .. import recipe as recipes

    if list_:
        _list(json)
        return
    given = {"model": model, "weights": weights, "data": data, "seed": seed}
    chosen = recipes.load(recipe, **{key: value for key, value in given.items() if value is not None})
    if model and not weights and chosen.weights and (own := recipes.load(recipe).model) != model:
        raise OptionError(
            f"recipe {recipe} brings weights for {own} ({chosen.weights}), which {model} cannot take. "
            f"Give --weights for {model}."
        )
    if set_:
        chosen = recipes.load(change(chosen.to_dict(), set_))
    folder = out or Path("runs") / re.sub(r"[^\w.-]+", "_", f"{Path(chosen.model).name}-{chosen.name}")
    finish("compress", chosen, folder, fresh=fresh, json=json)


def finish(command: str, chosen: Any, folder: Path, *, fresh: bool, json: bool) -> dict[str, Any]:
    """Run a recipe, show its report, and return it."""
    from ..report import table
    from ..run import run

    steps = [
        *(["Train"] if chosen.train and not chosen.weights else []),
        *(type(s).__name__ for s in chosen.steps),
    ]
    if sys.stderr.isatty():  # an error stays the only line for whoever reads standard error
        notice("gossamer", f"{chosen.model} on {chosen.data}: {', '.join(steps)}; results go to {folder}")
    report = run(chosen, folder, resume=not fresh, progress=True, tell=progress_line)
    if json:
        emit(command, {**report, "folder": str(folder), "files": files(folder)})
    else:
        console().print(table.render(report, html=folder / "report.html", file=folder / "model.goss"))
    return report


def files(folder: Path) -> dict[str, str]:
    """What a run writes, by kind."""
    names = {
        "model": "model.goss",
        "recipe": "recipe.lock.yaml",
        "report": "report.json",
        "html": "report.html",
    }
    return {kind: str(folder / name) for kind, name in names.items()}


def change(tree: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """A recipe's dictionary with `STEP.OPTION=VALUE` applied; STEP is a name (all of it), a number, or train.

    Values are YAML: `Share.bits=4`, `Prune.density={fc1: 0.1}`, `Prune.density.fc1=0.1`, `2.epochs=3`,
    `threads=1`.
    """
    import yaml

    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise OptionError(
                f"--set {setting}: expected STEP.OPTION=VALUE, for example --set Finetune.epochs=2."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise OptionError(f"--set {setting}: {text!r} is not a YAML value.") from error
        if len(keys) == 1:
            tree[keys[0]] = value
            continue
        for options in _targets(tree, keys[0], setting):
            for key in keys[1:-1]:
                inner = options.get(key)
                options[key] = dict(inner) if isinstance(inner, dict) else {}
                options = options[key]
            options[keys[-1]] = value
    return tree


def _targets(tree: dict[str, Any], step: str, setting: str) -> list[dict[str, Any]]:
    """The option dictionaries that a step name or number means."""
    steps = tree["steps"]
    if step.lower() == "train" and not any("Train" in item for item in steps):
        tree["train"] = dict(tree.get("train") or {})
        return [tree["train"]]
    if step.isdecimal():
        if not 1 <= int(step) <= len(steps):
            raise OptionError(f"--set {setting}: there is no step {step}; the recipe has {len(steps)}.")
        return [next(iter(steps[int(step) - 1].values()))]
    found = [options for item in steps for name, options in item.items() if name.lower() == step.lower()]
    if not found:
        names = dict.fromkeys(name for item in steps for name in item)
        raise OptionError(f"--set {setting}: the recipe has no step {step!r}. {nearest(step, names)}")
    return found


def _list(json: bool) -> None:
    from .. import recipe as recipes

    known = {name: recipes.load(name).to_dict() for name in recipes.names()}
    if json:
        emit("compress", {"recipes": known})
        return
    for name, tree in known.items():
        steps = " > ".join(next(iter(step)) for step in tree["steps"])
        console().print(f"[bold]{name}[/bold]  {tree['model']} on {tree['data']}: {steps}")
