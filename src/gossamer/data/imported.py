"""`module:function` and `file.py:function`: a name in the user's code, found and imported.

The working directory (or the file's folder) is importable while the module is loaded, so a script beside the
user's code can import its neighbours.
Raises: the error class of the caller (DataError, ModelError) when the text, the module or the name is wrong,
with the user's own exception as its cause.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gossamer.errors import GossamerError, nearest


def import_name(spec: str, *, error: type[GossamerError]) -> Any:
    """The object that `module:name` or `file.py:name` points to."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise error(f"{spec!r}: expected module:function or file.py:function.")
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise error(f"{spec}: there is no file {place!r} in {Path.cwd()}.")
    try:
        with _importable(Path(place).resolve().parent if is_file else Path.cwd()):
            module = _load_file(Path(place)) if is_file else importlib.import_module(place)
    except ModuleNotFoundError as cause:
        if cause.name and place.split(".")[0] == cause.name:
            raise error(
                f"{spec}: there is no module {place!r}. For a file write {place.replace('.', '/')}.py:{name}"
            ) from cause
        raise error(f"{spec}: importing {place} failed ({type(cause).__name__}: {cause}).") from cause
    except Exception as cause:
        raise error(f"{spec}: importing {place} failed ({type(cause).__name__}: {cause}).") from cause
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [key for key in vars(value) if not key.startswith("_")]
            raise error(f"{spec}: {place} has no {part!r}. {nearest(part, known)}")
        value = getattr(value, part)
    return value


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = (
        f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"  # two model.py files may coexist
    )
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
