"""Memories: which tensor lies in which memory, while a model runs.

A memory is a torch storage. Weights are the memories of parameters and buffers, constants those of other tensors
that the model holds; every other memory that is written is an activation and gets a number. A storage is kept
by a weak reference, so that its address is not given to another tensor while the recording lasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from .schedule import Weight


class Memories:
    """The memories seen so far; `sizes` are the bytes of each activation."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._references: dict[int, StorageWeakRef] = {}
        self._activations: dict[int, int] = {}
        self._weights: dict[int, str] = {}  # storage -> the first name
        self._originals: dict[int, Tensor] = {}  # storage -> a flat view of the real values
        self._constants: set[int] = set()
        self._aliases: dict[int, Tensor] = {}  # id of a parameter -> the tensor that runs in its place
        self._nonzero: dict[tuple[object, ...], int] = {}

    def without_values(self, model: nn.Module) -> dict[str, Tensor]:
        """Tensors without values in the place of every parameter and buffer, with the same sharing of memory."""
        bases: dict[int, Tensor] = {}
        made: dict[str, Tensor] = {}
        for name, tensor in _held(model):
            if tensor.layout != torch.strided:
                made[name] = tensor
                continue
            address = _address(tensor)
            if address not in bases:
                bytes_ = tensor.untyped_storage().nbytes()
                bases[address] = torch.empty(bytes_, dtype=torch.uint8, device="cpu")
                self._weights[self._keep(bases[address])] = name
                if not tensor.is_meta:
                    self._originals[self._keep(bases[address])] = tensor.detach()
            fake = bases[address].new_empty(0, dtype=tensor.dtype)
            fake.set_(
                bases[address].untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()
            )
            made[name] = self._aliases[id(tensor)] = fake
        return made

    def with_values(self, model: nn.Module) -> dict[str, Tensor]:
        """The real parameters, and copies of the buffers (a forward may change those)."""
        copies: dict[int, Tensor] = {}
        made: dict[str, Tensor] = {}
        parameters = {id(value) for value in model.parameters()}
        for name, tensor in _held(model):
            if id(tensor) not in copies:
                copies[id(tensor)] = tensor.detach() if id(tensor) in parameters else tensor.detach().clone()
            used = made[name] = self._aliases[id(tensor)] = copies[id(tensor)]
            if self._keep(used) not in self._weights:
                self._weights[self._keep(used)] = name
                self._originals[self._keep(used)] = used
        return made

    def alias(self, tensor: Tensor) -> Tensor:
        """The tensor that runs in the place of a parameter."""
        return self._aliases.get(id(tensor), tensor)

    def key(self, tensor: Tensor) -> int:
        """The memory of a tensor."""
        return self._keep(tensor)

    def known(self, tensor: Tensor) -> bool:
        """Whether the memory has been seen as a weight, a constant or an activation."""
        key = self._keep(tensor)
        return key in self._weights or key in self._activations or key in self._constants

    def constant(self, tensor: Tensor) -> None:
        """Remember a tensor that the model holds without registering it."""
        self._constants.add(self._keep(tensor))

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether the memory is that of a parameter, buffer or constant."""
        return self._keep(tensor) in self._weights or self._keep(tensor) in self._constants

    def named(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """The names of the weights among them, each once."""
        keys = [self._keep(tensor) for tensor in tensors]
        return tuple(dict.fromkeys(self._weights[key] for key in keys if key in self._weights))

    def activations(self, tensors: Iterable[Tensor], *, new: bool = False) -> tuple[int, ...]:
        """The numbers of the activations among them, each once; a memory not seen before gets one."""
        found: dict[int, None] = {}
        for tensor in tensors:
            key = self._keep(tensor)
            if not new and (key in self._weights or key in self._constants):
                continue
            if key not in self._activations:
                self._activations[key] = len(self._activations)
                self.sizes[self._activations[key]] = _storage_bytes(tensor)
            found[self._activations[key]] = None
        return tuple(found)

    def nonzero(self, tensor: Tensor) -> int | None:
        """How many elements of a weight (or of a view of it) are not zero; None without values."""
        original = self._originals.get(self._keep(tensor))
        if original is None:
            return None
        place = (
            self._keep(tensor),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.storage_offset(),
            tensor.dtype,
        )
        if place not in self._nonzero:
            with torch.no_grad(), torch.utils._python_dispatch._disable_current_modes():
                view = torch.empty(0, dtype=tensor.dtype)
                view.set_(original.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
                self._nonzero[place] = int(torch.count_nonzero(view))
        return self._nonzero[place]

    def weights(self, model: nn.Module) -> tuple[Weight, ...]:
        """Every parameter and buffer, each memory once."""
        trained = {id(value) for value in model.parameters()}
        covered: dict[int, list[tuple[int, int]]] = {}
        rows = []
        for name, tensor in _held(model):
            numel = tensor.numel()
            if tensor.layout == torch.strided:
                numel = _uncovered(tensor, covered.setdefault(_address(tensor), []))
            if not numel and tensor.numel():
                continue
            nonzero = None if tensor.is_meta else int(torch.count_nonzero(tensor.detach()))
            rows.append(
                Weight(
                    name=name,
                    layer=name.rpartition(".")[0],
                    shape=tuple(tensor.shape),
                    numel=numel,
                    dense_bytes=numel * tensor.element_size(),
                    nonzero=nonzero,
                    trained=id(tensor) in trained,
                )
            )
        return tuple(rows)

    def _keep(self, tensor: Tensor) -> int:
        address = _address(tensor)
        if address not in self._references:
            self._references[address] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch
        return address


def _held(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, then buffers, under every name they have."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _storage_bytes(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


def _uncovered(tensor: Tensor, covered: list[tuple[int, int]]) -> int:
    """Elements that no tensor before it covers; a view with gaps counts at most its own elements."""
    if not tensor.numel():
        return 0
    start = int(tensor.storage_offset())
    reach = sum(
        (int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    free = [(start, start + reach + 1)]
    for first, last in covered:
        free = [
            piece
            for begin, end in free
            for piece in ((begin, min(end, first)), (max(begin, last), end))
            if piece[0] < piece[1]
        ]
    covered += free
    return min(int(tensor.numel()), sum(end - begin for begin, end in free))
