"""How channels pass through each ATen operator: one function per operator, named as in ATen.

A function takes the flow and the call and returns the values of the results. An operator without a function is pointwise if
torch says so; else channels stop there, and the place is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..flow import Flow
from . import elements, joins, moves, norms, parts, products, reductions, windows
from .call import Call

__all__ = ["MOVES", "RULES", "Call", "Rule"]

Rule = Callable[[Flow, Call], Any]

RULES: dict[str, Rule] = {
    name: function
    for module in (reductions, windows, moves, parts, joins, norms, products, elements)
    for name, function in vars(module).items()
    if callable(function)
    and name not in ("reshaped", "picked")
    and getattr(function, "__module__", "") == module.__name__
}

# the operators that only move elements: sizes in the code are found on their operands and results
MOVES = frozenset(name for name, rule in RULES.items() if rule.__module__ in (moves.__name__, parts.__name__))
