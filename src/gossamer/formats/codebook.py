"""Codebook: every weight is one of K = 2^bits shared values (weight sharing, palettization).

    w_hat[o, i] = centroids[codes[o, i]]
    centroids: float [K], trained      codes: uint8 or int32 [*shape], fixed after `encode`

The gradient of a centroid is the sum of the gradients of the weights that share it (Deep Compression, eq. 3).
Stored: codes at ceil(log2 K) bits per weight before entropy coding, plus K floats of 32 bits; centroids that no
weight uses are left out of the file. Fewer distinct weights than K give that many centroids and no error.
Error:  k-means reaches a local minimum of sum |w - w_hat|^2; linear initialization keeps the large weights.
Raises: FormatError when the tensor is empty.
Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, arXiv:1510.00149, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..artifact.stored import Floats, Ints, Stored
from ..errors import FormatError, OptionError, nearest
from . import kmeans
from .base import Parts, WeightFormat, check_finite


@dataclass(frozen=True, kw_only=True)
class Codebook(WeightFormat):
    """2^bits shared values found by k-means; the codes stay, the values are trained."""

    layout: ClassVar[str] = "codebook"
    own_parts: ClassVar[tuple[str, ...]] = ("codes", "centroids")

    bits: int = 5
    init: str = "linear"
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and 1 <= self.bits <= 12):
            raise OptionError(f"Codebook: bits must be 1 to 12; received {self.bits!r}.")
        if self.init not in kmeans.INITS:
            raise OptionError(
                f"Codebook: unknown init {self.init!r}. {nearest(str(self.init), kmeans.INITS)}"
            )

    def encode(self, dense: Tensor) -> Parts:
        if dense.numel() == 0:
            raise FormatError(
                f"Codebook: no weight to share (shape {tuple(dense.shape)}). "
                "Skip this layer, or prune it less."
            )
        check_finite(dense, "Codebook")
        weights = dense.detach().float().cpu().numpy()
        size = min(2**self.bits, np.unique(weights).size)
        centroids = kmeans.kmeans(weights, size, init=self.init, seed=self.seed)
        codes = kmeans.assign(weights, centroids)
        dtype = torch.uint8 if self.bits <= 8 else torch.int32
        return (
            torch.from_numpy(codes).to(dtype).to(dense.device),
            torch.from_numpy(centroids).float().to(dense.device),
        )

    def decode(self, *parts: Tensor) -> Tensor:
        codes, centroids = parts
        return centroids[codes.int()]  # index_put sums the gradients of a cluster

    def store(self, *parts: Tensor) -> Stored:
        codes, centroids = (part.detach().cpu().numpy() for part in parts)
        used, packed = np.unique(codes.reshape(-1), return_inverse=True)
        width = max(1, int(used.size - 1).bit_length())
        return Stored(
            self.layout,
            tuple(codes.shape),
            {
                "codes": Ints(packed.astype(np.uint8 if width <= 8 else np.uint16), width),
                "centroids": Floats(centroids[used].astype(np.float32)),
            },
        )
