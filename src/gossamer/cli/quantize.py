"""`gossamer quantize`: a network as 8-bit integers, without training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from .compress import finish
from .output import Json, notice


def quantize(
    model: Annotated[
        str, typer.Argument(help="An .onnx file, a built-in name, module:function or file.py:function.")
    ],
    data: Annotated[
        str,
        typer.Option(help="Inputs to calibrate on, and to measure: as for compress."),
    ],
    weights: Annotated[
        str | None, typer.Option(help="A safetensors or torch file, or a name in the data folder.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Training inputs that set the grids.")] = 512,
    observer: Annotated[
        str, typer.Option(help="minmax, moving-average, percentile, mse or entropy.")
    ] = "minmax",
    bits: Annotated[int, typer.Option(min=2, max=8, help="Bits of a weight.")] = 8,
    skip: Annotated[
        list[str] | None, typer.Option(help="A layer that stays float; may be repeated, globs too.")
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="Most validation accuracy to lose, such as 1%; the layers that cost most stay float."
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure every layer rounded alone; the report shows it.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture of the layers' sensitivity: a .svg, .png or .pdf file (with --sensitivity)."
        ),
    ] = None,
    keep_integers: Annotated[
        bool, typer.Option("--keep-integers", help="Keep integers even where float32 is faster here.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default: runs/MODEL-quantize.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")] = False,
    json: Json = False,
) -> None:
    """Round weights and activations to integers that a standard engine runs, and pack the network.

    Norms are folded, activations get grids from calibration inputs, weights one scale per output channel.

    Example: [bold]gossamer quantize lenet300 --data digits[/bold]
    """
    from .. import recipe as recipes

    left_out = {"skip": list(skip)} if skip else {}
    steps: list[dict[str, Any]] = [
        {"Calibrate": {"samples": samples, "observer": observer, **left_out}},
        {
            "Quantize": {
                "bits": bits,
                "granularity": "channel",
                "fit": "max" if bits == 8 else "mse",
                **left_out,
            }
        },
    ]
    if plot is not None and not sensitivity:
        raise OptionError(f"--plot {plot} shows a scan of layers. Add --sensitivity.")
    if max_drop is not None or sensitivity:
        protect = {"max_drop": points(max_drop) if max_drop is not None else 100.0}
        steps.append({"Protect": {**protect, **({"scan": True} if sensitivity else {})}})
    tree: dict[str, Any] = {"name": "quantize", "model": model, "data": data, "seed": seed, "steps": steps}
    tree["keep_integers"] = keep_integers
    if weights is not None:
        tree["weights"] = weights
    chosen = recipes.parse(tree)
    folder = out or Path("runs") / re.sub(r"[^\w.-]+", "_", f"{Path(model).name}-quantize")
    report = finish("quantize", chosen, folder, fresh=fresh, json=json)
    if plot is not None:
        from ..report import sensitivity as picture

        picture.save(report["sensitivity"], plot, name=Path(model).name)
        notice("plot", str(plot))


def points(text: str) -> float:
    """Percentage points: "1%" and "1" are 1, "0.5 %" is 0.5."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError as error:
        raise OptionError(f"--max-drop {text}: expected points of accuracy, such as 1%.") from error
