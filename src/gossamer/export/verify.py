"""verify: the packed file, reopened, must give what the model gave.

The largest absolute difference over all outputs is compared with 1e-4 times the output's largest finite
value (at least 1); half precision models get 2e-2. Outputs of integers or truths must be equal.

A network with quantized activations may differ by more, because integer sums round where float sums do not: by up to
twice what half a step of noise before every rounding does to the same output (`dither`). Of integers and truths, twice
the share that the noise changes may differ.

Raises: ExportError naming the output, the difference and the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .. import runtime
from ..errors import ExportError, GossamerError

TOLERANCE = 1e-4
DITHERS = 2
HALF_TOLERANCE = 2e-2


def verify(
    path: Path,
    feed: Mapping[str, np.ndarray],
    expected: Mapping[str, torch.Tensor],
    *,
    half: bool,
    dither: Mapping[str, float] | None = None,
) -> float:
    """The largest absolute difference between the file's outputs and `expected`; dither: `dither.reach`."""
    try:
        session = runtime.open(path, threads=1)
        given = session(dict(feed))
    except GossamerError as error:
        raise ExportError(f"the packed file does not run: {error}") from error
    outputs = given if isinstance(given, dict) else {session.outputs[0].name: given}
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    return max(
        _difference(name, outputs[name], value, tolerance, DITHERS * (dither or {}).get(name, 0.0))
        for name, value in expected.items()
    )


def _difference(name: str, got: np.ndarray, expected: torch.Tensor, tolerance: float, dither: float) -> float:
    if got.shape != tuple(expected.shape):
        raise ExportError(
            f"output {name!r} of the packed file has shape {list(got.shape)}, "
            f"the model's has {list(expected.shape)}."
        )
    if not expected.dtype.is_floating_point:
        if np.mean(got != expected.numpy()) > dither:
            raise ExportError(
                f"output {name!r} of the packed file differs from the model's, and holds no floats."
            )
        return 0.0
    want, have = expected.double().numpy(), got.astype(np.float64)
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], have[~finite], equal_nan=True):
        raise ExportError(
            f"output {name!r}: infinite or missing values of the model's are not those of the file."
        )
    if not finite.any():
        return 0.0
    worst = float(np.abs(want[finite] - have[finite]).max())
    limit = max(tolerance * max(1.0, float(np.abs(want[finite]).max())), dither)
    if not worst <= limit:
        raise ExportError(
            f"output {name!r} of the file differs from the model's by {worst:.2g}, more than {limit:.2g}."
            " A model that draws random numbers in eval mode cannot be packed; else please report it."
        )
    return worst
