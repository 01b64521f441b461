"""`gossamer run`: a packed file on pictures, recordings or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..errors import DataError, ModelError, OptionError
from .output import Json, console, emit, naming, text

if TYPE_CHECKING:
    from ..runtime import Session

ARRAYS = (".npy", ".npz")


def run(
    file: Annotated[Path, typer.Argument(help="A .goss file.", show_default=False)],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Pictures, WAV recordings, or .npy / .npz arrays.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for output arrays; default: beside the input."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each picture.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: one per core.")] = None,
    json: Json = False,
) -> None:
    """Run the network: pictures give classes, arrays give arrays.

    A picture goes through the preprocessing stored in the file. An array is used as it is, and the answer is
    written to NAME.out.npy (NAME.out.npz for several outputs). A network with several inputs takes one .npy
    for each, in order, or one .npz that names them.

    Example: [bold]gossamer run model.goss photo.jpg[/bold]
    """
    from .. import runtime

    with naming(file):
        session = runtime.open(file, threads=threads)
    results = []
    if len(session.inputs) > 1 and all(path.suffix == ".npy" for path in inputs):
        if len(inputs) != len(session.inputs):
            wanted = ", ".join(map(str, session.inputs))
            raise OptionError(
                f"{file}: {len(inputs)} arrays were given for {len(session.inputs)} inputs: {wanted}."
            )
        feeds = {port.name: load(path) for port, path in zip(session.inputs, inputs, strict=True)}
        results.append(save(session(feeds), inputs[0], output))
    else:
        for path in inputs:
            results.append(one(session, path, output=output, top=top))
    if json:
        emit("run", {"file": str(file), "results": results})
        return
    for result in results:
        show(result)


def one(session: Session, path: Path, *, output: Path | None, top: int) -> dict[str, Any]:
    """The answer for one file."""
    if path.suffix in ARRAYS:
        return save(session(load(path)), path, output)
    if session.preprocess is None:
        raise OptionError(
            f"{path}: the file stores no preprocessing, so it cannot read pictures. Give a .npy array of "
            f"{session.inputs[0]}, or pack with preprocess=..."
        )
    if len(session.inputs) > 1:
        raise OptionError(
            f"{path}: the network takes {len(session.inputs)} inputs. Give one .npy array for each."
        )
    from ..data import Preprocess

    answer = session(Preprocess.from_dict(session.preprocess).file(path))
    scores = next(iter(answer.values())) if isinstance(answer, dict) else answer
    if scores.ndim != 2 or isinstance(answer, dict):
        return save(answer, path, output)
    return {"input": str(path), "classes": classes(scores[0], session.labels, top)}


def classes(scores: np.ndarray, labels: list[str] | None, top: int) -> list[dict[str, Any]]:
    """The most probable classes, best first; scores that are no probabilities go through softmax."""
    values = scores.astype(np.float64)
    if values.min() < 0 or abs(values.sum() - 1) > 1e-3:
        values = np.exp(values - values.max())
        values /= values.sum()
    best = np.argsort(-values, kind="stable")[:top]
    return [
        {
            "index": int(index),
            "label": labels[index] if labels and index < len(labels) else str(index),
            "probability": float(values[index]),
        }
        for index in best
    ]


def load(path: Path) -> Any:
    """An array of a .npy file, or a dictionary of those of a .npz file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a numpy array ({error}).") from error


def save(answer: np.ndarray | dict[str, np.ndarray], path: Path, output: Path | None) -> dict[str, Any]:
    """Write the outputs of one run."""
    folder = path.parent if output is None else output
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}.out{'.npz' if isinstance(answer, dict) else '.npy'}"
    if target == path:
        raise ModelError(f"{path}: the output would replace the input. Give --output FOLDER.")
    if isinstance(answer, dict):
        np.savez(target, allow_pickle=False, **answer)
        shapes = {name: list(array.shape) for name, array in answer.items()}
    else:
        np.save(target, answer, allow_pickle=False)
        shapes = {"output": list(answer.shape)}
    return {"input": str(path), "output": str(target), "shapes": shapes}


def show(result: dict[str, Any]) -> None:
    """One result as text."""
    if "output" in result:
        shapes = ", ".join(f"{name} {shape}" for name, shape in result["shapes"].items())
        console().print(text(f"{result['input']} -> {result['output']}  ({shapes})"))
        return
    rows = [f"{row['probability']:7.2%}  {row['label']}" for row in result["classes"]]
    console().print(text("\n  ".join([result["input"], *rows])))
