"""What `gossamer profile` and `gossamer compare` measure: a model or a file, and the shapes it is called with.

    --input 1x3x224x224            float32
    --input 1x128:int64            another type
    --input tokens=1x128:int64     by name; repeated for several inputs

Without --input a file takes 1 for every free axis; a built-in network and one of transformers know their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError, nearest

FILES = (".goss", ".onnx", ".json")
DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool")

Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="Shape of an input, such as 1x3x224x224; may be repeated.",
    ),
]


def subject(spec: str, inputs: list[str] | None, weights: str | None = None) -> tuple[Any, Any]:
    """(a path or a torch module, the example for it)."""
    shapes = [_parsed(text) for text in inputs or []]
    if spec.endswith(FILES):
        if weights:
            raise OptionError(f"{spec}: a file has its own weights. Leave --weights out.")
        return Path(spec), _file_shapes(shapes)
    from ..models import load_model

    model = load_model(spec, weights)
    return model, _example(model, shapes, spec)


def _parsed(text: str) -> tuple[str | None, tuple[int, ...], str]:
    name, equals, rest = text.rpartition("=")
    shape, colon, dtype = rest.partition(":")
    try:
        sizes = tuple(int(size) for size in shape.lower().replace(",", "x").split("x"))
    except ValueError as error:
        raise OptionError(
            f"--input {text}: expected a shape such as 1x3x224x224 or name=1x128:int64."
        ) from error
    if any(size < 0 for size in sizes):
        raise OptionError(f"--input {text}: sizes cannot be negative.")
    if colon and dtype not in DTYPES:
        raise OptionError(f"--input {text}: unknown type {dtype!r}. {nearest(dtype, DTYPES)}")
    return (name if equals else None), sizes, dtype or "float32"


def _file_shapes(shapes: list[tuple[str | None, tuple[int, ...], str]]) -> Any:
    if not shapes:
        return None
    if all(name is None for name, _, _ in shapes):
        return shapes[0][1] if len(shapes) == 1 else [_Shaped(sizes) for _, sizes, _ in shapes]
    return {_named(name, sizes): sizes for name, sizes, _ in shapes}


def _example(model: Any, shapes: list[tuple[str | None, tuple[int, ...], str]], spec: str) -> Any:
    import torch

    if not shapes:
        own = getattr(model, "input_shape", None)
        if own is not None:
            return torch.zeros(tuple(own))
        dummy = getattr(model, "dummy_inputs", None)  # networks of transformers bring one
        if dummy:
            return dict(dummy)
        raise OptionError(f"{spec}: give the shape of its input, for example --input 1x3x224x224.")
    made = [(name, torch.zeros(sizes, dtype=getattr(torch, dtype))) for name, sizes, dtype in shapes]
    if all(name is None for name, _ in made):
        return tuple(value for _, value in made)
    return {_named(name, tuple(value.shape)): value for name, value in made}


def _named(name: str | None, sizes: tuple[int, ...]) -> str:
    if name is None:
        shape = "x".join(map(str, sizes))
        raise OptionError(f"--input {shape}: name every input or none, for example --input tokens={shape}.")
    return name


class _Shaped:
    """A shape alone, where an array is expected."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
