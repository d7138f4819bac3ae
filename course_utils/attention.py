"""Scaled dot-product attention, from the softmax up (notebook 01).

Shapes: B batch, H num_heads, Q number of queries, K number of keys, D d_model, d d_head = D / H.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def softmax(scores: Tensor) -> Tensor:
    """Stable softmax over the last dimension; returns a tensor of the same shape and dtype.

    Subtracting each row's maximum changes nothing in exact arithmetic and keeps `exp` from
    overflowing. A row that is fully masked (all -inf) has no distribution: its weights are 0.
    float16 and bfloat16 are computed in float32 and rounded once, at the end.
    Source: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018, section 2.
    """
    x = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    row_max = x.amax(dim=-1, keepdim=True)
    row_max = row_max.masked_fill(row_max == -math.inf, 0.0)
    weights = torch.exp(x - row_max)
    total = weights.sum(dim=-1, keepdim=True)
    return (weights / total.masked_fill(total == 0, 1.0)).to(scores.dtype)


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Boolean mask (Q, K), True where a query may look.

    The queries are the *last* Q of the K positions: query i is at position K - Q + i and sees
    the keys up to and including its own. With no cache Q = K, and the mask is the familiar square.
    """
    query_position = torch.arange(num_keys - num_queries, num_keys, device=device)
    key_position = torch.arange(num_keys, device=device)
    return key_position[None, :] <= query_position[:, None]


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention weights (..., Q, K) of queries (..., Q, d) on keys (..., K, d); rows sum to 1.

    `mask` (Q, K), or broadcastable to the scores, is True where a query may look; every query
    must see at least one key. `torch.softmax` is `softmax` above in one pass over memory, which is
    several times faster on long sequences.
    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 1.
    """
    scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-2, -1)
    if mask is not None:
        scores.masked_fill_(~mask, -math.inf)
    return torch.softmax(scores, dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: (..., Q, d), the values (..., K, d) averaged by the weights."""
    return attention_weights(q, k, mask) @ v


class KeyValueStore(Protocol):
    """What an attention layer asks of a cache (notebook 04 builds two)."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, H, Q, d) of new positions; return those of all positions."""


class SingleHeadAttention(nn.Module):
    """Causal self-attention with one head: (B, Q, D) -> (B, Q, D)."""

    def __init__(self, d_model: int):
        super().__init__()
        self.W_q = nn.Linear(d_model, d_model, bias=False)
        self.W_k = nn.Linear(d_model, d_model, bias=False)
        self.W_v = nn.Linear(d_model, d_model, bias=False)
        self.W_o = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = causal_mask(x.size(1), x.size(1), x.device)
        return self.W_o(attention(self.W_q(x), self.W_k(x), self.W_v(x), mask))


class MultiHeadAttention(nn.Module):
    """Causal self-attention with several heads side by side: (B, Q, D) -> (B, Q, D).

    With `num_heads=1` it is `SingleHeadAttention`, parameter for parameter. With a cache, the
    Q new positions attend to all K = cached + Q positions.
    Raises ValueError if `d_model` cannot be divided among the heads.
    """

    def __init__(self, d_model: int, num_heads: int = 1):
        super().__init__()
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(
                f"d_model={d_model} cannot be split into num_heads={num_heads} heads of equal "
                "size: choose a num_heads that divides d_model."
            )
        self.num_heads = num_heads
        self.W_q = nn.Linear(d_model, d_model, bias=False)
        self.W_k = nn.Linear(d_model, d_model, bias=False)
        self.W_v = nn.Linear(d_model, d_model, bias=False)
        self.W_o = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, cache: KeyValueStore | None = None, layer: int = 0) -> Tensor:
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.W_o(self.merge_heads(self.attend(q, k, v)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last Q positions on all K: (B, H, Q, d)."""
        return attention(q, k, v, causal_mask(q.size(-2), k.size(-2), q.device))

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, H, Q, d)."""
        batch, seq_len, d_model = x.shape
        return x.view(batch, seq_len, self.num_heads, d_model // self.num_heads).transpose(1, 2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """(B, H, Q, d) -> (B, Q, D), the inverse of `split_heads`."""
        batch, num_heads, seq_len, d_head = x.shape
        return x.transpose(1, 2).reshape(batch, seq_len, num_heads * d_head)


class FusedAttention(MultiHeadAttention):
    """`MultiHeadAttention` by PyTorch's fused kernel, which never stores the (Q, K) scores.

    Same parameters, same result, far less memory traffic on long sequences.
    Source: Dao et al., "FlashAttention", 2022.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        num_queries, num_keys = q.size(-2), k.size(-2)
        if num_queries == num_keys:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mask = causal_mask(num_queries, num_keys, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
