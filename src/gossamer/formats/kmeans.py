"""One-dimensional k-means by sorting: the nearest centroid of a sorted weight is found at the midpoints.

    minimise  sum_k sum_{w in cluster k} (w - c_k)^2                         (Deep Compression, eq. 2)

Lloyd's algorithm on sorted weights with prefix sums costs K log n per iteration, without a distance matrix.
An empty cluster keeps its old centroid. Ties go to the lower centroid. Arithmetic is float64.
Initialisations of the paper (section 3.2): `linear` c_k = w_min + k (w_max - w_min) / (K - 1), `density` (equally spaced
in the cumulative distribution), `forgy` (random samples); and `optimal`, the global optimum over a histogram of 1024
bins by dynamic programming (Wang, Song, 2011, "Ckmeans.1d.dp"), polished by Lloyd.
Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, arXiv:1510.00149.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
INITS = ("linear", "density", "forgy", "optimal")


def kmeans(weights: Array, size: int, *, init: str = "linear", seed: int = 0, iterations: int = 100) -> Array:
    """At most `size` centroids, ascending, float64; `weights` any shape with at least one entry."""
    ordered = np.sort(weights.reshape(-1).astype(np.float64))
    centroids = _initial(ordered, size, init, seed)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(iterations):
        edges = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2, side="right")
        edges = np.concatenate([[0], edges, [ordered.size]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        updated = np.sort(np.where(counts > 0, means, centroids))
        if np.array_equal(updated, centroids):
            break
        centroids = updated
    return centroids


def assign(weights: Array, centroids: Array) -> Array:
    """Index of the nearest of the ascending `centroids` for every weight; same shape, intp."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, weights.astype(np.float64), side="left")


def _initial(ordered: Array, size: int, init: str, seed: int) -> Array:
    if init == "linear":
        return np.linspace(ordered[0], ordered[-1], size)
    if init == "density":
        ranks = (np.arange(size) + 0.5) / size * ordered.size
        return ordered[np.minimum(ranks.astype(np.intp), ordered.size - 1)]
    if init == "forgy":
        return np.sort(np.random.default_rng(seed).choice(ordered, size, replace=False))
    return _optimal(ordered, size)


def _optimal(ordered: Array, size: int, bins: int = 1024) -> Array:
    """Centroids of the least squared error over a histogram, by dynamic programming over the bins."""
    edges = np.unique(np.linspace(0, ordered.size, bins + 1).astype(np.intp))
    counts = np.diff(edges).astype(np.float64)
    sums = np.add.reduceat(ordered, edges[:-1])
    n = counts.size
    size = min(size, n)
    weight, first = np.concatenate([[0], np.cumsum(counts)]), np.concatenate([[0], np.cumsum(sums)])
    second = np.concatenate([[0], np.cumsum(sums**2 / counts)])
    start, stop = np.arange(n)[:, None], np.arange(1, n + 1)[None, :]
    mass = np.maximum(weight[stop] - weight[start], 1e-300)
    cost = second[stop] - second[start] - (first[stop] - first[start]) ** 2 / mass
    cost[stop <= start] = np.inf  # cost[i, j - 1]: one cluster over bins i..j-1
    best, choice = cost[0].copy(), [np.zeros(n, np.intp)]
    for _ in range(1, size):
        total = np.concatenate([[np.inf], best[:-1]])[:, None] + cost
        choice.append(total.argmin(axis=0))
        best = total.min(axis=0)
    cuts, end = [n], n
    for k in range(size - 1, -1, -1):
        end = int(choice[k][end - 1])
        cuts.append(end)
    cuts = cuts[::-1]
    return np.diff(first[cuts]) / np.maximum(np.diff(weight[cuts]), 1e-300)
