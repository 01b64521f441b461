"""Heads: nn.MultiheadAttention with fewer heads than its width has room for.

    W_q, W_k, W_v  [h d, E]      W_o  [E, h d]      h d < E after heads were cut; d = head_dim as before

torch's own forward takes h d = E for granted. A cut copy keeps its parameters, their names and its attributes, and gets
this class, whose forward reads h from the weights. No learned or zero keys are appended (bias_k, add_zero_attn).
Source: Vaswani et al., "Attention is all you need", NIPS 2017, section 3.2.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError


class FewerHeads(nn.MultiheadAttention):
    """Takes and returns what nn.MultiheadAttention does; a mask of three axes is [N h, L, S] for the heads left."""

    @staticmethod
    def adopt(module: nn.Module) -> None:
        """Give this class to an attention of torch that has lost heads, and leave every other module alone."""
        if type(module) is not nn.MultiheadAttention:
            return
        if module.out_proj.weight.shape[1] != module.num_heads * module.head_dim:
            module.__class__ = FewerHeads
            module.num_heads = module.out_proj.weight.shape[1] // module.head_dim
            module._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer off its fused path

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # a hint; torch passes the mask as well
    ) -> tuple[Tensor, Tensor | None]:
        if self.bias_k is not None or self.add_zero_attn:
            raise ModelError(
                "nn.MultiheadAttention with bias_k or add_zero_attn cannot lose heads; keep them all."
            )
        single = query.dim() == 2
        if single or not self.batch_first:  # [L, E] or [L, N, E] -> [N, L, E]
            query, key, value = (x.unsqueeze(0) if single else x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            F.linear(x, weight, bias).reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), *self._projections(), strict=True)
        )
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5  # [N, h, L, S]
        if attn_mask is not None:
            full = attn_mask if attn_mask.dim() == 2 else attn_mask.reshape(scores.shape)
            scores = scores + _additive(full, scores)
        if key_padding_mask is not None:
            padding = key_padding_mask.reshape(len(scores), 1, 1, -1)
            scores = scores + _additive(padding, scores)
        weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
        y = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if single:
            return y[0], None if shown is None else shown[0]
        return y if self.batch_first else y.transpose(0, 1), shown

    def _projections(self) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        packed = self.in_proj_weight
        weights = (
            packed.chunk(3)
            if packed is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return weights, biases


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """-inf where a mask of booleans is True; a mask of numbers as it is."""
    if mask.dtype != torch.bool:
        return mask.to(scores.dtype)
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
