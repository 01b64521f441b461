"""How channels pass through each ATen operator: one function per operator, named as in ATen.

A function takes the flow and the call and returns the values of the results. An operator without a function is pointwise if
torch says so; else channels stop there, and the place is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..flow import Flow
from . import elements, joins, moves, norms, products, reductions, windows
from .call import Call

__all__ = ["RULES", "Call", "Rule", "moves"]

Rule = Callable[[Flow, Call], Any]

RULES: dict[str, Rule] = {
    name: function
    for module in (reductions, windows, moves, joins, norms, products, elements)
    for name, function in vars(module).items()
    if callable(function) and name != "reshaped" and getattr(function, "__module__", "") == module.__name__
}
