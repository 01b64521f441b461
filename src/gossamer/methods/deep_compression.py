"""Deep Compression: the paper's own accounting, beside what the file really holds.

Per layer of N weights with n kept, b bits per code and b_i bits per relative index, q paddings (section 2 of the paper):

    P+Q   = (n + q)(b + b_i) / 32 N                    P+Q+H = Huffman bits of both streams / 32 N
    D_r   = D_o sqrt(C_ir / C_io)                      dropout after pruning, C = connections of the layer

The paper's scheme stores a padding entry as code 0 of value 0, so 2^b - 1 real values remain; the file keeps 2^b and
cheaper positions, which is why its own bytes are lower. Each stage of the method is a step: Prune, Share, Finetune.
Source: Han, Mao, Dally, ICLR 2016, arXiv:1510.00149; dropout: Han, Pool, Tran, Dally, NIPS 2015, arXiv:1506.02626, eq. 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import codec
from ..artifact import Reader, inspect, layouts
from ..codec import gaps
from ..errors import OptionError

COLUMNS = (
    "kept_percent",
    "code_bits",
    "code_bits_huffman",
    "index_bits",
    "index_bits_huffman",
    "pq_percent",
    "pqh_percent",
)


def dropout_after(before: float, connections_before: int, connections_after: int) -> float:
    """The dropout rate that fits a pruned layer; rates and fractions in [0, 1)."""
    if not 0 <= before < 1 or not 0 <= connections_after <= connections_before:
        raise OptionError(
            f"dropout {before} of {connections_before} connections, {connections_after} kept: expected a rate in [0, 1) "
            "and no more connections after than before."
        )
    return before * math.sqrt(connections_after / max(connections_before, 1))


def paper_row(weight: np.ndarray, *, code_bits: int, index_bits: int) -> dict[str, float]:
    """One row of Tables 2 to 5 from a pruned and shared weight [*shape]: the paper's two streams, Huffman coded."""
    flat = weight.reshape(-1)
    positions = np.flatnonzero(flat)
    index, padding = gaps.relative_index(positions, index_bits)
    values, codes = np.unique(flat[positions], return_inverse=True)
    if values.size > 2**code_bits:
        raise OptionError(f"{values.size} shared values do not fit {code_bits} bits.")
    entries = np.zeros(index.size, np.uint16)
    entries[~padding] = codes + 1  # code 0 is the padding's exact zero
    coded = {
        "code": len(codec.Huffman.encode(entries, min(16, code_bits + 1))) * 8,
        "index": len(codec.Huffman.encode(index.astype(np.uint16), index_bits)) * 8,
    }
    total = 32 * flat.size
    return {
        "kept_percent": 100 * positions.size / flat.size,
        "code_bits": float(code_bits),
        "code_bits_huffman": coded["code"] / max(index.size, 1),
        "index_bits": float(index_bits),
        "index_bits_huffman": coded["index"] / max(index.size, 1),
        "pq_percent": 100 * index.size * (code_bits + index_bits) / total,
        "pqh_percent": 100 * (coded["code"] + coded["index"]) / total,
    }


def paper_table(file: Path, published: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Published rows beside ours. `published`: {layer: {code_bits, index_bits, row: seven figures of COLUMNS}}."""
    rows = []
    found = {tensor.name: tensor for tensor in inspect(file).tensors}
    with Reader(file) as reader:
        for name, entry in published.items():
            weight = layouts.rebuild(reader.tensor(f"{name}.weight").stored)
            ours = paper_row(weight, code_bits=entry["code_bits"], index_bits=entry["index_bits"])
            stored = found[f"{name}.weight"].size_bytes
            rows.append(
                {
                    "layer": name,
                    "weights": int(weight.size),
                    "published": dict(zip(COLUMNS, entry["row"], strict=True)),
                    "ours": {key: round(value, 2) for key, value in ours.items()},
                    "file_percent": round(100 * stored / (4 * weight.size), 2),
                }
            )
    return rows
