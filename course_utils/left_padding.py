"""Prompts of different length in one batch, the shorter ones padded on the left (notebook 05).

    ids, padding = left_pad(prompts)
    cache = model.padded_cache(padding)
    logits, cache = model(ids, past_kv=cache, use_cache=True)

On the left, so that every prompt ends in the last column and the next token of every row goes into
the same column. Two things change: a row's positions count from its first real token, and nothing
real looks at padding.

Shapes: B batch, Q new columns, K all columns so far, V vocab_size.
"""

from typing import Any

import torch
from torch import Tensor

from .attention import MultiHeadAttention, attention, causal_mask
from .kv_cache import PreallocatedCache
from .transformer import DecoderOnlyTransformer


def left_pad(prompts: list[Tensor], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts (T_i,) as one batch (B, longest), and how many of each row's columns are padding."""
    longest = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=prompts[0].device)
    rows = [
        torch.cat([prompt.new_full((longest - len(prompt),), pad), prompt]) for prompt in prompts
    ]
    return torch.stack(rows), padding


class LeftPaddedCache(PreallocatedCache):
    """A cache whose row i begins with `padding[i]` columns that mean nothing."""

    def __init__(self, model: DecoderOnlyTransformer, padding: Tensor):
        super().__init__(model, len(padding))
        self.padding = padding

    def reorder(self, rows: Tensor) -> None:
        super().reorder(rows)
        self.padding = self.padding[rows]


class LeftPaddedAttention(MultiHeadAttention):
    def forward(self, x: Tensor, cache: Any = None, layer: int = 0) -> Tensor:
        if not isinstance(cache, LeftPaddedCache):
            return super().forward(x, cache, layer)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        k, v = cache.append(layer, k, v)
        mask = self.mask(q.size(-2), k.size(-2), cache.padding)
        return self.W_o(self.merge_heads(attention(q, k, v, mask)))

    def mask(self, num_queries: int, num_keys: int, padding: Tensor) -> Tensor:
        """(B, 1, Q, K), True where a query may look.

        Queries that are padding themselves see padding: nobody reads what comes of it, but a row
        that sees nothing becomes NaN, and a weight of 0 times NaN is NaN in the next layer.
        """
        real = torch.arange(num_keys, device=padding.device) >= padding[:, None]
        allowed = real[:, None, :] | ~real[:, -num_queries:, None]
        return (causal_mask(num_queries, num_keys, padding.device) & allowed)[:, None]


class LeftPaddedTransformer(DecoderOnlyTransformer):
    """The course's model, with caches for prompts of different length."""

    attention_class = LeftPaddedAttention

    def __init__(self, vocab_size: int, d_model: int, *args: Any, num_heads: int = 1, **kw: Any):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kw)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)

    def padded_cache(self, padding: Tensor) -> LeftPaddedCache:
        """An empty cache for a batch whose row i begins with `padding[i]` columns of padding."""
        return LeftPaddedCache(self, padding)

    def forward(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        if not isinstance(past_kv, LeftPaddedCache):
            return super().forward(input_ids, past_kv, use_cache)
        self.check_input(input_ids, past_kv, use_cache)
        columns = past_kv.length + torch.arange(input_ids.size(1), device=input_ids.device)
        x = self.token_embedding(input_ids)
        x = self.dropout(x + self.pos_embedding(self.positions(columns, past_kv.padding)))
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv

    def positions(self, columns: Tensor, padding: Tensor) -> Tensor:
        """The positions of the tokens of `columns` (Q,) in their own row (B, Q); padding gets 0."""
        return (columns - padding[:, None]).clamp(min=0)
