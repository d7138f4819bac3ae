"""A cache that keeps a window: the last positions, and the first few as sinks (chapter 09).

Shapes: B batch, H num_heads, T tokens, Q queries, K positions that are kept, d d_head.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...transformer import DecoderOnlyTransformer
from .smaller_caches import (
    ApproximateTransformer,
    Rule,
    SmallerCache,
    approximate,
    one_position,
    slots,
)


def band_mask(
    num_queries: int,
    num_keys: int,
    window: int,
    sinks: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Boolean mask (Q, K): each query sees the last `window` positions, its own among them, and
    the first `sinks`. As in `attention.causal_mask`, the queries are the last Q of K positions.

    Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks", 2023, figure 1.
    """
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)
    return (key <= query) & ((key > query - window) | (key < sinks))


def window_rule(window: int, sinks: int = 0) -> Rule:
    """Attention under `band_mask`."""

    def rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = band_mask(q.size(-2), k.size(-2), window, sinks, q.device)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return rule


class WindowCache(SmallerCache):
    """The first `sinks` positions and the last `window`, in as many slots.

    `window` is a number, or one for each layer. A new position takes the slot of the oldest that
    is no sink; the order of the slots means nothing to attention.
    """

    def __init__(
        self,
        model: DecoderOnlyTransformer,
        batch_size: int,
        window: int | Sequence[int],
        sinks: int = 0,
    ):
        super().__init__(model, batch_size)
        self.windows = [window] * model.num_layers if isinstance(window, int) else list(window)
        self.sinks = sinks
        counts = [sinks + window for window in self.windows]
        self.keys, self.values = slots(model, batch_size, counts), slots(model, batch_size, counts)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, 1, d) of one position; return all (B, H, K, d) that it looks at."""
        one_position(k)
        position, window = self.lengths[layer], self.windows[layer]
        slot = position
        if position >= self.sinks:
            slot = self.sinks + (position - self.sinks) % window
        self.keys[layer][:, :, slot] = k[:, :, 0]
        self.values[layer][:, :, slot] = v[:, :, 0]
        self.lengths[layer] = position + 1
        filled = min(position + 1, self.sinks + window)
        return self.keys[layer][:, :, :filled], self.values[layer][:, :, :filled]


def windowed(
    model: DecoderOnlyTransformer, window: int | Sequence[int], sinks: int = 0
) -> ApproximateTransformer:
    """The model with a `WindowCache`; `window` is a number, or one for each layer."""
    windows = [window] * model.num_layers if isinstance(window, int) else window
    rules = [window_rule(window, sinks) for window in windows]
    return approximate(model, rules, partial(WindowCache, window=window, sinks=sinks))
