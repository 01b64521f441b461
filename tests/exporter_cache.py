"""torch.onnx parses the source of its 500 operators at every export, which takes longer than a small export.

Test modules that pack many models import `operators_read_once`; the exporter itself is unchanged.
"""

from __future__ import annotations

import functools

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

_read = functools.cache(ONNXRegistry.from_torchlib)


@pytest.fixture(scope="module", autouse=True)
def operators_read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(_read))
        yield
