"""Matrix products whose weights are not constant; the others become layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ....errors import ModelError


def MatMul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.matmul(a, b)
    return product if bias is None else torch.add(product, bias)


def Gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha A B + beta C, A and B transposed if wanted."""
    product = torch.matmul(a.t() if transA else a, b.t() if transB else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else torch.add(product, c if beta == 1 else beta * c)


def Einsum(*xs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation.replace(" ", ""), *xs)


def Attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: int = 0,
    q_num_heads: int | None = None,
    kv_num_heads: int | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    qk_matmul_output_mode: int = 0,
) -> Tensor:
    """Attention of opset 23 without a cache; [N, T, heads * D] is cut into heads, and fewer key heads are shared."""
    if softcap:
        raise ModelError("Attention: softcap is not known. Export the network with an opset below 23.")
    flat = q.ndim == 3
    if flat:
        if q_num_heads is None or kv_num_heads is None:
            raise ModelError("Attention: inputs of three axes need q_num_heads and kv_num_heads.")
        q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    if q.shape[1] != k.shape[1]:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if is_causal and mask is not None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -math.inf)
        is_causal = 0
    y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=bool(is_causal), scale=scale)
    return y.transpose(1, 2).flatten(2) if flat else y


def _heads(x: Tensor, count: int) -> Tensor:
    return torch.unflatten(x, 2, (count, -1)).transpose(1, 2)
