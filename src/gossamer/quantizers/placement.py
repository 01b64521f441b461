"""Placement: which tensors of a network are rounded, so that ONNX Runtime runs integers between them.

    conv, linear, matmul       read rounded values; a convolution's result is rounded too (QLinearConv), that of a linear
                               layer or product where someone reads it rounded (else it ends as float)
    add, mul, cat, mean, avg_pool of activations
                               join the integers when what comes after them does, and are then rounded on both sides
    activation (ReLU, ReLU6)   follows its producer: the value is rounded once, after it
    max_pool, nearest resize, reshapes, slices
                               keep the grid of what they read
    layer norms, sigmoid and other curves, attention, embeddings
                               stay float; what they make is rounded where an integer layer reads it

The result of the network stays float. Layers left out stay float on both sides.
Source: the QDQ patterns that ONNX Runtime's CPU provider fuses (qdq_selector_action_transformer).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from .calls import Call, Calls

PRODUCTS = ("conv", "linear", "matmul")
JOINS = ("add", "mul", "cat", "mean", "avg_pool")


@dataclass(frozen=True)
class Place:
    """One rounded tensor: the output of call `call` (-1, -2, ...: an input of the network)."""

    call: int
    kind: str
    layer: str
    norm: str = ""  # a batch norm that is not folded yet: the value is rounded behind it
    feeds: tuple[str, ...] = ()  # the kinds and layers of integer calls that read it: "conv layer1.0.conv1"

    @property
    def name(self) -> str:
        """The name of its quantizer: "call12", "input0"."""
        return f"call{self.call}" if self.call >= 0 else f"input{-1 - self.call}"


@dataclass(frozen=True)
class Placement:
    """Where quantizers go, which weighted layers then run on integers, and what stays float, with the reason."""

    places: tuple[Place, ...]
    layers: tuple[str, ...]
    skipped: dict[str, str]
    kinds: tuple[str, ...]  # of every call, in order: a forward that differs cannot be followed


def place(calls: Calls, *, skip: Container[str] = ()) -> Placement:
    """The placement for a network; `skip` are paths of layers that stay float."""
    skipped: dict[str, str] = {}
    integer = _integer(calls, skip, skipped)
    wanted: dict[int, None] = {}
    for call in calls.calls:
        if call.index not in integer:
            continue
        for value in call.reads:
            if value is not None:
                wanted[_source(calls, value.call)] = None
        if call.kind == "conv" or call.kind in JOINS:
            wanted[_end(calls, call)] = None
    last = {_source(calls, value.call) for value in calls.outputs}
    finals = {
        index
        for index in last
        if index >= 0 and not any(reader.index in integer for reader in calls.readers(index))
    }
    places = tuple(
        _place(calls, index, integer)
        for index in sorted(wanted)
        if index not in finals or calls.calls[index].kind == "conv"
    )
    layers = tuple(
        dict.fromkeys(call.layer for call in calls.calls if call.index in integer and call.weighted)
    )
    return Placement(places, layers, skipped, tuple(call.kind for call in calls.calls))


def _integer(calls: Calls, skip: Container[str], skipped: dict[str, str]) -> set[int]:
    """The calls that run on integers, found from the last to the first: a join waits for its readers."""
    chosen: set[int] = set()
    for call in reversed(calls.calls):
        if call.kind in PRODUCTS:
            if call.layer in skip:
                skipped[call.layer] = "left out by the recipe"
            elif all(value is None for value in call.reads):
                continue  # computed from weights alone
            else:
                chosen.add(call.index)
        elif call.kind in JOINS:
            values = [value for value in call.reads if value is not None]
            needed = 2 if call.kind in ("add", "mul") else 1
            after = _readers(calls, call.index)
            if len(values) >= needed and any(reader.index in chosen for reader in after):
                chosen.add(call.index)
        elif call.kind in ("norm", "attention"):
            skipped[call.layer or call.function] = f"{call.function} has no integer kernel"
    return chosen


def _readers(calls: Calls, index: int) -> list[Call]:
    """Who reads a value, looking through activations and pools that keep its grid."""
    found: list[Call] = []
    for reader in calls.readers(index):
        if reader.kind in ("activation", "max_pool", "resize"):
            found += _readers(calls, reader.index)
        else:
            found.append(reader)
    return found


def _source(calls: Calls, index: int) -> int:
    """The call whose output is rounded when the output of `index` is: pools and resizes keep the grid they read."""
    while index >= 0 and calls.calls[index].kind in ("max_pool", "resize"):
        before = calls.calls[index].reads[0]
        if before is None:
            return index
        index = before.call
    return index


def _end(calls: Calls, call: Call) -> int:
    """Where the result of a call is rounded: after the activation, if that alone reads it."""
    readers = calls.readers(call.index)
    alone = len(readers) == 1 and readers[0].kind == "activation"
    return readers[0].index if alone else call.index


def _place(calls: Calls, index: int, integer: Container[int]) -> Place:
    readers = [reader for reader in _readers(calls, index) if reader.index in integer]
    feeds = tuple(dict.fromkeys(f"{reader.kind} {reader.layer}".strip() for reader in readers))
    if index < 0:
        return Place(index, "input", "", feeds=feeds)
    call = calls.calls[index]
    return Place(index, call.kind, call.layer, call.norm, feeds)
