"""Every operator gives what ONNX Runtime gives, in old and new opsets."""

from __future__ import annotations

import numpy as np
import pytest

from gossamer.models.onnx.build import KNOWN
from onnx_cases import followed, ran
from onnx_cases_layers import INTEGERS, NORMS, PRODUCTS, RECURRENT, WINDOWS
from onnx_cases_moves import CREATED, INDEX, SHAPES
from onnx_cases_numbers import ACTIVATIONS, ELEMENTWISE, REDUCTIONS
from onnx_cases_resize import RESIZES

CASES = [
    *(*ELEMENTWISE, *ACTIVATIONS, *REDUCTIONS, *SHAPES, *INDEX, *CREATED),
    *(*PRODUCTS, *WINDOWS, *NORMS, *INTEGERS, *RECURRENT, *RESIZES),
]


@pytest.mark.parametrize("given", CASES, ids=lambda given: f"{given.op}-{given.opset}")
def test_an_operator_gives_what_onnx_runtime_gives(given):
    model, feed = given.model(), given.feed()

    want, got = ran(model, feed), followed(model, feed)

    for one, expected in zip(got, want, strict=True):
        assert one.shape == expected.shape
        assert one.dtype == expected.dtype
        scale = (
            max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
            if one.dtype.kind == "f"
            else 1
        )
        np.testing.assert_allclose(one, expected, rtol=0, atol=given.tolerance * scale)


def test_every_operator_has_a_case():
    elsewhere = {"Constant", "If"}
    sequences = {name for name in KNOWN if "Sequence" in name} - {"ReverseSequence"}  # see test_models_onnx

    assert KNOWN - {given.op for given in CASES} == elsewhere | sequences
