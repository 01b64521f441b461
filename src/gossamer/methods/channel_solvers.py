"""Channel solvers: which inputs of a layer stay, and which weights then give its outputs, from Gram matrices alone.

A unit i owns columns of the layer's unfolded weight W [g, O/g, K]; units: int64 [K], -1 for a column of no unit. Its
contribution to output o at a place is z_i = sum over its columns k of W[o, k] x[k], so sums over all places and outputs
follow from X^T X and X^T Y:

    products   G[i, j] = sum z_i z_j = sum over k of i, l of j of (X^T X)[k, l] (W^T W)[k, l]         [c, c]
    aims       b[i] = sum z_i (y - what columns of no unit give)                                     [c]

    greedy          argmin over sets T of so many units of 1_T^T G 1_T, one unit at a time
    lasso           argmin 1/2 beta^T G beta - b^T beta + sum alpha_i |beta_i|, by coordinate descent
    lasso_choice    units that the greatest alpha leaves of which there are enough
    scales          argmin |sum_i z_i - sum over kept i of s_i z_i|^2
    least_squares   argmin |Y - X W'^T|^2 over all weights of kept columns

Every pair (output, place) counts as one sample. Where the samples leave a direction open, scales stay at 1 and weights at
W: a ridge pulls there, not to 0. float64 throughout; deterministic, ties go to the earlier unit.
Source: Luo, Wu, Lin, "ThiNet", ICCV 2017, arXiv:1707.06342, section 3.2; He, Zhang, Sun, "Channel Pruning for Accelerating
Very Deep Neural Networks", ICCV 2017, arXiv:1707.06168, section 3.1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SWEEPS, HALVINGS = 1000, 30


def products(xx: Tensor, weight: Tensor, units: Tensor, size: int) -> Tensor:
    """G [size, size] from X^T X [g, K, K] and W [g, O/g, K]."""
    owners = _owners(units, size)
    return owners.t() @ _pairs(xx, weight) @ owners


def aims(xx: Tensor, xy: Tensor, weight: Tensor, units: Tensor, size: int) -> Tensor:
    """b [size] from X^T X [g, K, K], X^T Y [g, K, O/g] and W [g, O/g, K]."""
    given = (xy * weight.transpose(1, 2)).sum((0, 2))
    return _owners(units, size).t() @ (given - _pairs(xx, weight) @ (units < 0).double())


def greedy(gram: Tensor, count: int, removable: Tensor) -> Tensor:
    """Kept units, bool [c], after `count` removals; each takes the unit that adds least to 1_T^T G 1_T.

    count: at most the number of removable units.
    """
    diagonal = gram.diagonal()
    kept, touched = torch.ones_like(removable), torch.zeros_like(diagonal)  # touched = G 1_T
    for _ in range(count):
        added = torch.where(kept & removable, 2 * touched + diagonal, torch.inf)
        at = int(added.argmin())
        kept[at] = False
        touched += gram[at]
    return kept


def lasso(
    gram: Tensor, aim: Tensor, alpha: Tensor, start: Tensor | None = None, *, close: float = 1e-8
) -> Tensor:
    """beta [c] for penalties alpha [c]; `start`: where the descent starts.

    close: it ends when no coefficient moves by more than this part of the greatest.
    """
    g, b, a = (t.double().numpy() for t in (gram, aim, alpha))
    beta = np.zeros_like(b) if start is None else start.double().numpy().copy()
    left = b - g @ beta
    alive = np.flatnonzero(g.diagonal() > 0)

    def sweep(units: np.ndarray) -> bool:
        moved = 0.0
        for j in units:
            old = beta[j]
            pull = left[j] + g[j, j] * old
            new = np.sign(pull) * max(abs(pull) - a[j], 0.0) / g[j, j]
            if new != old:
                left[:] -= g[j] * (new - old)
                beta[j] = new
                moved = max(moved, abs(new - old))
        return moved > close * float(np.abs(beta).max(initial=0))

    for _ in range(SWEEPS):
        if not sweep(alive):
            break
        for _ in range(SWEEPS):  # most coefficients are zero and stay so
            if not sweep(np.flatnonzero(beta)):
                break
    return torch.from_numpy(beta)


def lasso_choice(gram: Tensor, aim: Tensor, count: int, removable: Tensor) -> Tensor:
    """Kept units, bool [c], `count` of them: those that are left by the greatest penalty that leaves enough.

    From a penalty that leaves nothing it is halved until `count` units are left, then halved between until no more than 1.1
    times `count` are; of more than `count`, and where their number jumps, the greatest |beta| stay. Units that are not
    removable carry no penalty and always stay.
    """
    kept = ~removable
    wanted = max(count, int(kept.sum()))

    def solve(alpha: float, start: Tensor) -> Tensor:
        return lasso(gram, aim, removable.double() * alpha, start, close=1e-4)

    def left(beta: Tensor) -> int:
        return int(((beta != 0) | kept).sum())

    high = float(aim.abs().max())
    low, enough = high, torch.zeros_like(aim)
    for _ in range(HALVINGS):
        if left(enough) >= wanted:
            break
        low, high = low / 2, low
        enough = solve(low, enough)
    for _ in range(HALVINGS):
        if left(enough) <= 1.1 * wanted:
            break
        middle = (low + high) / 2
        beta = solve(middle, enough)
        if left(beta) >= wanted:
            low, enough = middle, beta
        else:
            high = middle
    order = torch.where(kept, torch.inf, enough.abs()).argsort(descending=True, stable=True)
    chosen = kept.clone()
    chosen[order[:wanted]] = True
    return chosen


def scales(gram: Tensor, kept: Tensor, ridge: float = 1e-6) -> Tensor:
    """s [c], 0 for units that go; ridge: part of the mean of G's diagonal."""
    held = gram[kept][:, kept]
    gone = gram[kept][:, ~kept].sum(1)  # what kept units can give of what removed ones gave
    result = torch.zeros_like(gram[0])
    result[kept] = 1 + _solve(held, gone[:, None], ridge)[:, 0]
    return result


def least_squares(xx: Tensor, xy: Tensor, weight: Tensor, kept: Tensor, ridge: float = 1e-3) -> Tensor:
    """W' [g, O/g, K], 0 outside the kept columns, bool [K]; ridge: part of the mean of the diagonal of X^T X."""
    result = torch.zeros_like(weight)
    for into, held, given, old in zip(
        result, xx[:, kept][:, :, kept], xy[:, kept], weight[:, :, kept], strict=True
    ):
        into[:, kept] = old + _solve(held, given - held @ old.t(), ridge).t()
    return result


def _solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """(matrix + ridge)^-1 right; directions without any sample give 0."""
    diagonal = matrix.diagonal()
    added = ridge * float(diagonal.mean()) if len(diagonal) else 0.0
    damped = matrix + torch.diag(torch.full_like(diagonal, added or 1.0))
    factor, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed):  # rounding made the smallest eigenvalues negative
        solved: Tensor = torch.linalg.pinv(damped, hermitian=True) @ right
    else:
        solved = torch.cholesky_solve(right, factor)
    return solved


def _pairs(xx: Tensor, weight: Tensor) -> Tensor:
    """Sum over places and outputs of the products of what any two columns give, [K, K]."""
    return (xx * (weight.transpose(1, 2) @ weight)).sum(0)


def _owners(units: Tensor, size: int) -> Tensor:
    """float64 [K, size], 1 where a column belongs to a unit."""
    return F.one_hot(units + 1, size + 1)[:, 1:].double()
