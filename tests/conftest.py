"""One torch thread: the suite's networks are small, and threads that wait for each other cost more than they give.

torch says some warnings once a process, so that which test meets one would depend on the order: here it says them always.
"""

from collections.abc import Iterator

import pytest
import torch

from gossamer import native

torch.set_num_threads(1)
torch.set_warn_always(True)

HERE = [name for name in native.VARIANTS if native.use_isa(name) == name]
native.use_isa("")


@pytest.fixture(params=HERE)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """The library capped at one variant, each that this processor has in turn."""
    native.use_isa(request.param)
    yield request.param
    native.use_isa("")
