"""Checkpoint: the whole state of a run in one safetensors file, replaced atomically.

    DIR/checkpoint.safetensors      tensors under numbered names; metadata "state" is a JSON tree, where
                                    {"tensor": name} stands for a tensor, {"dict": [[key, value], ...]} for a
                                    dictionary and {"tuple": [...]} for a tuple

The new file is written beside the old one, flushed to the disk and renamed over it, so at every moment a
complete checkpoint exists and no pickle is ever read. JSON writes floats so that they read back to the same
bits.
Raises: GossamerError when the disk is full or a checkpoint cannot be read; OptionError for state that is not
data.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gossamer.errors import GossamerError, OptionError


class Checkpoint:
    """One run's checkpoint in a folder of its own."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "checkpoint.safetensors"

    def save(self, state: Any) -> None:
        """Replace the checkpoint; the old one stays until the new one is on the disk."""
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_flatten(state, tensors, "state"))
        fresh = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, fresh, metadata={"state": text})
            with open(fresh, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
            _sync_folder(self.path.parent)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):  # the first error says more
                fresh.unlink(missing_ok=True)
            kept = "the previous checkpoint is intact" if self.path.exists() else "there is no previous one"
            raise GossamerError(
                f"checkpoint {self.path}: could not be written ({error}); {kept}. Free space on the disk and "
                f"run again."
            ) from error

    def load(self) -> Any:
        """The saved state, or None when there is none."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                text = (file.metadata() or {})["state"]
                names = file.keys()
                return _unflatten(json.loads(text), {name: file.get_tensor(name) for name in names})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise GossamerError(
                f"checkpoint {self.path}: cannot be read ({error}). Remove the file to start the run again."
            ) from error

    def clear(self) -> None:
        """Forget the run."""
        self.path.unlink(missing_ok=True)


def _flatten(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # a copy of its own: tied weights share memory, which the file format refuses
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(item, tensors, f"{place}.{key}")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, tensors, f"{place}.{number}") for number, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise OptionError(
        f"checkpoint: {place} is {type(value).__name__}, expected tensors, numbers, texts, lists or dicts."
    )


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(_unflatten(item, tensors) for item in value["tuple"])
        return {key: _unflatten(item, tensors) for key, item in value["dict"]}
    return value


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def copy_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state_dict whose tensors are copies."""
    return {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else value
        for key, value in state.items()
    }
