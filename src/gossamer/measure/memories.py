"""Memories: which tensor lies in which memory, while a model runs.

A memory is a torch storage. Weights are the memories of parameters and buffers, constants those of other tensors
that the model holds; every other memory that is written is an activation and gets a number. A storage is kept
by a weak reference, so that its address is not given to another tensor while the recording lasts.

A model does not run on its own weights: each has a stand-in that shares memory with the same others, without
values or with a copy of them, so that a forward that writes to a weight or buffer changes nothing.
Raises: MeasureError for a tensor that is not strided (sparse, opaque).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import MeasureError
from .schedule import Weight

Place = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]  # memory, offset, shape, stride, type


class Memories:
    """The memories seen so far; `sizes` are the bytes of each activation."""

    def __init__(self, *, values: bool) -> None:
        self.sizes: dict[int, int] = {}
        self._values = values  # whether stand-ins hold values
        self._references: dict[int, StorageWeakRef] = {}
        self._activations: dict[int, int] = {}
        self._weights: dict[int, str] = {}  # storage -> the first name
        self._constants: set[int] = set()
        self._bases: dict[int, Tensor] = {}  # storage of the model -> the bytes that stand in for it
        self._stand_ins: dict[Place, Tensor] = {}
        self._originals: dict[int, Tensor] = {}  # storage -> a tensor with the real values
        self._nonzero: dict[Place, int] = {}

    def replace_(self, model: nn.Module) -> None:
        """Put a stand-in in the place of every parameter and buffer."""
        for name, holder, tensor in list(_held(model)):
            made = holder[name.rpartition(".")[2]] = self._stand_in(tensor)
            self._weights.setdefault(self.key(made), name)

    def running(self, tensor: Tensor) -> Tensor:
        """What runs in the place of a tensor that the model reads: a stand-in, or the tensor itself."""
        if isinstance(tensor, FakeTensor) or (self._values and self.key(tensor) not in self._bases):
            return tensor
        return self._stand_in(tensor)

    def key(self, tensor: Tensor) -> int:
        """The memory of a tensor."""
        address = _address(tensor)
        if address not in self._references:
            self._references[address] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch
        return address

    def found(self, tensor: Tensor) -> None:
        """A tensor that is read: one that no operator wrote and no module registers is a constant."""
        key = self.key(tensor)
        if key not in self._weights and key not in self._activations:
            self._constants.add(key)

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether the memory is that of a parameter, buffer or constant."""
        return self.key(tensor) in self._weights or self.key(tensor) in self._constants

    def named(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """The names of the weights among them, each once."""
        keys = [self.key(tensor) for tensor in tensors]
        return tuple(dict.fromkeys(self._weights[key] for key in keys if key in self._weights))

    def activations(self, tensors: Iterable[Tensor], *, new: bool = False) -> tuple[int, ...]:
        """The numbers of the activations among them, each once; a memory not seen before gets one."""
        found: dict[int, None] = {}
        for tensor in tensors:
            if not new and self.is_weight(tensor):
                continue
            key = self.key(tensor)
            if key not in self._activations:
                self._activations[key] = len(self._activations)
                self.sizes[self._activations[key]] = int(tensor.untyped_storage().nbytes())
            found[self._activations[key]] = None
        return tuple(found)

    def nonzero(self, tensor: Tensor) -> int | None:
        """How many elements of a weight (or of a view of it) are not zero; None without values."""
        original = self._originals.get(self.key(tensor))
        if original is None:
            return None
        place = _place(tensor)
        if place not in self._nonzero:
            with torch.no_grad(), _disable_current_modes():
                view = original.new_empty(0, dtype=tensor.dtype)
                view.set_(original.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
                self._nonzero[place] = int(torch.count_nonzero(view))
        return self._nonzero[place]

    def _stand_in(self, tensor: Tensor) -> Tensor:
        place = _place(tensor)
        if place not in self._stand_ins:
            key = self.key(tensor)
            if key not in self._bases:
                storage = tensor.untyped_storage()
                if self._values:
                    copy = storage.clone()  # type: ignore[no-untyped-call]  # torch
                    base = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(copy)
                else:
                    base = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu")
                self._bases[key] = base
                if not tensor.is_meta:
                    self._originals[self.key(base)] = base if self._values else tensor
            base = self._bases[key]
            made = base.new_empty(0, dtype=tensor.dtype)
            made.set_(base.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
            self._stand_ins[place] = made
        return self._stand_ins[place]


def weights(model: nn.Module) -> tuple[Weight, ...]:
    """Every parameter and buffer, each element of memory once: it belongs to the tensor named first."""
    held = list(_held(model))
    trained = {id(tensor) for module in model.modules() for tensor in module._parameters.values()}
    places: dict[int, dict[Place, None]] = {}
    for _, _, tensor in held:
        places.setdefault(_address(tensor), {})[_place(tensor)] = None
    masks = {key: _mask(group) for key, group in places.items() if _overlap(group)}
    rows, seen = [], set()
    for name, _, tensor in held:
        place = _place(tensor)
        if place in seen:
            continue
        seen.add(place)
        numel, nonzero = _new_elements(tensor, masks.get(place[0]))
        if numel or not tensor.numel():
            layer, size = name.rpartition(".")[0], numel * tensor.element_size()
            shape, is_trained = tuple(tensor.shape), id(tensor) in trained
            rows.append(Weight(name, layer, shape, numel, size, nonzero, trained=is_trained))
    return tuple(rows)


def _held(model: nn.Module) -> Iterator[tuple[str, dict[str, Tensor | None], Tensor]]:
    """(name, where it is held, tensor) of parameters, then of buffers; a module used in two places counts once."""
    for kind in ("_parameters", "_buffers"):
        for path, module in model.named_modules():
            held = getattr(module, kind)
            for name, tensor in held.items():
                if tensor is not None:
                    yield f"{path}.{name}" if path else name, held, tensor


def _address(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        raise MeasureError(
            f"a tensor of shape {list(tensor.shape)} has the layout {tensor.layout}, which has no single memory to "
            "count. Profile the model with dense tensors (tensor.to_dense()); zeros are counted in macs_nonzero."
        )
    return int(tensor.untyped_storage()._cdata)


def _place(tensor: Tensor) -> Place:
    shape, stride = tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))
    return _address(tensor), int(tensor.storage_offset()), shape, stride, tensor.dtype


def _span(place: Place) -> tuple[int, int]:
    """From the first element in memory to the one after the last."""
    _, start, shape, stride, _ = place
    reach = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return start, start + reach + 1 if prod(shape) else start


def _overlap(places: Iterable[Place]) -> bool:
    spans = sorted(map(_span, places))
    return any(second[0] < first[1] for first, second in pairwise(spans))


def _mask(places: Iterable[Place]) -> Tensor:
    """One flag for each element of a memory that several tensors share: whether a row counts it already."""
    return torch.zeros(max(_span(place)[1] for place in places), dtype=torch.bool)


def _new_elements(tensor: Tensor, mask: Tensor | None) -> tuple[int, int | None]:
    """Elements that no row counts yet, and how many of them are not zero (None without values)."""
    _, start, shape, stride, _ = _place(tensor)
    kept = [axis for axis, step in enumerate(stride) if step or not shape[axis]]  # an expanded axis is one
    where = [shape[axis] for axis in kept], [stride[axis] for axis in kept], start
    values = None if tensor.is_meta else tensor.detach().as_strided(*where)
    if mask is None:
        return prod(where[0]), None if values is None else int(torch.count_nonzero(values))
    part = mask.as_strided(*where)
    new = ~part
    part.fill_(True)
    return int(new.sum()), None if values is None else int(((values != 0).cpu() & new).sum())
