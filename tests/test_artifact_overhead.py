"""What a file costs beyond its weights, on a network that the dictionary of the head has never seen."""

from __future__ import annotations

import torch

from gossamer import formats
from gossamer.artifact import inspect
from gossamer.export import pack
from gossamer.models import load_model


def test_the_overhead_of_lenet5_is_below_400_bytes(tmp_path):
    model = load_model("lenet5")
    with torch.no_grad():
        for name in ("conv1.weight", "conv2.weight", "ip1.weight", "ip2.weight"):
            weight = model.get_parameter(name)
            weight.mul_(weight.abs() > weight.abs().quantile(0.9) if weight.numel() < 10**6 else 1)
            module, leaf = formats.locate(model, name)
            formats.attach(module, leaf, formats.Sparse(values=formats.Codebook(bits=5)))

    preprocess = {"color": "L", "size": 28, "div": 255, "mean": 0.1307, "std": 0.3081}
    labels = [str(digit) for digit in range(10)]
    pack(
        model,
        tmp_path / "model.goss",
        torch.zeros(1, 1, 28, 28),
        metadata={"recipe": "deep-compression"},
        preprocess=preprocess,
        labels=labels,
    )

    rows = inspect(tmp_path / "model.goss")
    assert rows.overhead_bytes <= 400
    assert rows.overhead_bytes + rows.payload_bytes == (tmp_path / "model.goss").stat().st_size
