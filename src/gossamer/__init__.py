"""Gossamer: a network in, one small file out, and the file runs.

    model = gs.load_model("lenet5")                                       any torch module
    gs.apply(model, [gs.Prune(sparsity=.9), gs.Share(bits=5)], data)      steps of compression
    gs.pack(model, "model.goss", example)                                 graph + weights, entropy coded
    session = gs.open("model.goss"); y = session(x)                       numpy in, numpy out, no torch

Names are loaded when they are first used: `import gossamer`, `gs.open`, `gs.unpack`, `gs.inspect` and
`gs.load_data` need no torch. Every step of `gossamer.steps` is a name of this module too (`gs.Prune`,
`gs.Share`, ...). Raises: GossamerError when a name needs a package of `gossamer[compress]` that is not
installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import GossamerError as GossamerError
from .errors import nearest

if TYPE_CHECKING:
    from .artifact import inspect as inspect
    from .data import Data as Data
    from .data import Preprocess as Preprocess
    from .data import load_data as load_data
    from .export import pack as pack
    from .measure.compare import compare as compare
    from .measure.profile import profile as profile
    from .models import load_model as load_model
    from .recipe import load as load_recipe
    from .runtime import Session as Session
    from .runtime import open as open
    from .runtime import unpack as unpack
    from .steps import *  # noqa: F403  # every step is a name of the package
    from .steps import apply as apply

__version__ = "0.1.0"

_HOME = {  # public name -> (module, name there)
    "Data": ("data", "Data"),
    "Preprocess": ("data", "Preprocess"),
    "Session": ("runtime", "Session"),
    "apply": ("steps", "apply"),
    "compare": ("measure", "compare"),
    "inspect": ("artifact", "inspect"),
    "load_data": ("data", "load_data"),
    "load_model": ("models", "load_model"),
    "load_recipe": ("recipe", "load"),
    "open": ("runtime", "open"),
    "pack": ("export", "pack"),
    "profile": ("measure", "profile"),
    "unpack": ("runtime", "unpack"),
}

__all__ = [  # the steps come on top, see __dir__
    "Data",
    "GossamerError",
    "Preprocess",
    "Session",
    "apply",
    "compare",
    "inspect",
    "load_data",
    "load_model",
    "load_recipe",
    "open",
    "pack",
    "profile",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module, attribute = _HOME[name]
        value = getattr(_load(module, name), attribute)
    elif name[:1].isupper() and name in (steps := _load("steps", name)).__all__:
        value = getattr(steps, name)
    else:  # cheap on purpose: `from gossamer import codec` asks here first
        raise AttributeError(f"module 'gossamer' has no name {name!r}. {nearest(name, __all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    try:
        steps = list(_load("steps", "steps").__all__)
    except GossamerError:  # no torch: the steps cannot be used, so they are not listed
        steps = []
    return sorted({*__all__, *steps, "__version__"})


def _load(module: str, name: str) -> Any:
    try:
        return importlib.import_module(f"gossamer.{module}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "gossamer":
            raise
        raise GossamerError(
            f"gossamer.{name} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'gossamer[compress]'"
        ) from error
