"""A cache that evicts the positions which got least attention, in each head its own (chapter 09).

Shapes: B batch, H num_heads, T tokens, K positions that are kept, d d_head.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attention import attention_weights
from ...transformer import DecoderOnlyTransformer
from .smaller_caches import (
    ApproximateTransformer,
    Rule,
    SmallerCache,
    approximate,
    one_position,
    slots,
)


def victim(mass: Tensor, protected: Tensor) -> Tensor:
    """Index (..., 1) of the smallest `mass` (..., K) among the positions that are not `protected`.

    Source: Zhang et al., "H2O: Heavy-Hitter Oracle", 2023, algorithm 1.
    """
    return mass.masked_fill(protected, math.inf).argmin(dim=-1, keepdim=True)


def eviction_mask(q: Tensor, k: Tensor, budget: int, recent: int) -> Tensor:
    """Who sees whom (B, H, T, T) when each head keeps `budget` positions, by attention received.

    Position t comes in; if `budget` are there, that one goes which has received least attention in
    all, the last `recent` (t among them) excepted. Then t looks, and its weights are added up.
    Nothing is thrown away here: a position that has gone is masked from then on.
    """
    batch, num_heads, length, d_head = q.shape
    seen = torch.zeros(batch, num_heads, length, length, dtype=torch.bool, device=q.device)
    alive, mass = torch.zeros_like(seen[:, :, 0]), torch.zeros_like(seen[:, :, 0], dtype=q.dtype)
    position = torch.arange(length, device=q.device)
    for t in range(length):
        if t >= budget:
            gone = victim(mass, ~alive | (position > t - recent))
            alive.scatter_(-1, gone, False)
        alive[:, :, t] = True
        seen[:, :, t] = alive
        mass += attention_weights(q[:, :, t : t + 1], k, alive[:, :, None])[:, :, 0]
    return seen


def eviction_rule(budget: int, recent: int) -> Rule:
    """Attention under `eviction_mask`."""

    def rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = eviction_mask(q, k, budget, recent)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return rule


class EvictingCache(SmallerCache):
    """`budget` slots in each head: the last `recent` positions, and those most looked at.

    Beside keys and values it keeps how much attention each slot has received, and whose it is.
    """

    parts = ("keys", "values", "mass", "positions")

    def __init__(self, model: DecoderOnlyTransformer, batch_size: int, budget: int, recent: int):
        super().__init__(model, batch_size)
        if not 1 <= recent <= budget:
            raise ValueError(f"recent={recent} must be from 1 to budget={budget}.")
        self.budget, self.recent = budget, recent
        counts = [budget] * model.num_layers
        self.keys, self.values = slots(model, batch_size, counts), slots(model, batch_size, counts)
        self.mass = [torch.zeros_like(keys[..., 0]) for keys in self.keys]
        self.positions = [torch.zeros_like(mass, dtype=torch.int32) for mass in self.mass]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, 1, d) of one position; return all (B, H, K, d) that it looks at."""
        one_position(k)
        position = self.lengths[layer]
        if position < self.budget:
            slot = torch.full_like(self.positions[layer][..., :1], position, dtype=torch.long)
        else:
            protected = self.positions[layer] > position - self.recent
            slot = victim(self.mass[layer], protected)
        self.keys[layer].scatter_(2, slot[..., None].expand_as(k), k)
        self.values[layer].scatter_(2, slot[..., None].expand_as(v), v)
        self.mass[layer].scatter_(2, slot, 0.0)
        self.positions[layer].scatter_(2, slot, position)
        self.lengths[layer] = position + 1
        filled = min(position + 1, self.budget)
        return self.keys[layer][:, :, :filled], self.values[layer][:, :, :filled]

    def saw(self, layer: int, weights: Tensor) -> None:
        self.mass[layer][:, :, : weights.size(-1)] += weights[:, :, 0]


def evicting(
    model: DecoderOnlyTransformer, budget: int, recent: int | None = None
) -> ApproximateTransformer:
    """The model with an `EvictingCache`; half of the budget is for the last positions."""
    recent = budget // 2 if recent is None else recent
    cache = partial(EvictingCache, budget=budget, recent=recent)
    return approximate(model, eviction_rule(budget, recent), cache)
