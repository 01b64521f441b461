"""Where the real data lies: $GOSSAMER_DATA, else a folder `shared/data` beside the checkout.

Without the variable, every folder from the working directory upwards, then from this package upwards, is
searched for `shared/data`. The bundled digits need neither.
Raises: DataError when the variable names no folder, when nothing is found, or when a file is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from gossamer.errors import DataError

VARIABLE = "GOSSAMER_DATA"


def find_root() -> Path | None:
    """The data folder, or None."""
    given = os.environ.get(VARIABLE)
    if given:
        if not Path(given).is_dir():
            raise DataError(
                f"{VARIABLE}: {given!r} is not a folder. Set it to the folder that holds mnist/, cifar10/, "
                f"..."
            )
        return Path(given)
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "shared" / "data").is_dir():
                return folder / "shared" / "data"
    return None


def data_root() -> Path:
    """The data folder; DataError says how to give one."""
    root = find_root()
    if root is None:
        raise DataError(
            f"data: no data folder was found. Set {VARIABLE} to the folder that holds mnist/, cifar10/, ..., "
            f"or use the bundled set 'digits'."
        )
    return root


def data_file(folder: str, name: str) -> Path:
    """`root/folder/name`; DataError when it is not there."""
    path = data_root() / folder / name
    if not path.is_file():
        raise DataError(
            f"{folder}: {path} does not exist. Copy the data set there, or set {VARIABLE} to another folder."
        )
    return path
