"""untouched: run a model and find it as it was.

Attributes of every module (weights, modes, hooks, caches that `forward` keeps) and what its lists, dicts and sets
hold are those of before, also after an error; so are the random state, the attention fast path and the hooks of
torch. Tensors that a forward writes into are the caller's to replace.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

CONTAINERS = (dict, list, set, deque)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever happens to the attributes of the modules inside is undone afterwards."""
    found = [
        (
            module.__dict__,
            dict(module.__dict__),
            [(kept, copy.copy(kept)) for kept in module.__dict__.values() if isinstance(kept, CONTAINERS)],
        )
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for attributes, before, containers in found:
            _restore(attributes, before)
            for kept, content in containers:
                _restore(kept, content)


@contextmanager
def plain_operators() -> Iterator[None]:
    """Every call runs as single operators: nothing is compiled, no encoder layer is one opaque operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    log = logging.getLogger("torch._subclasses.fake_tensor")  # prints a traceback for a wrong shape
    level = log.level
    torch.backends.mha.set_fastpath_enabled(False)
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
            warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global hooks")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        log.setLevel(level)


def _restore(kept: Any, before: Any) -> None:
    """Make a container what it was, in place: others may hold it too."""
    if isinstance(kept, list):
        kept[:] = before
        return
    kept.clear()
    if isinstance(kept, deque):
        kept.extend(before)
    else:
        kept.update(before)
