"""Caches that keep less, each with the rule that says what it is meant to compute (chapter 08).

A smaller cache does not give the logits of the plain forward pass. It gives those of another model,
and that model can be written down without any cache: attention with another mask, or with rounded
keys and values. This *rule* is the reference of the cache.

    model = approximate(load_model(), rule, cache)
    model(ids)                      by the rule, all positions at once
    model(ids, use_cache=True)      by the cache, one position after the other

`evaluation.kv_evaluate` compares the two. None of these caches has `truncate`: what they have
overwritten or rounded does not come back.

Shapes: B batch, H num_heads, T tokens, K positions that are kept, d d_head.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import attention_weights
from ..evaluation import TestCase, uncached
from ..transformer import DecoderOnlyTransformer
from .grouped_heads import GroupedAttention, GroupedTransformer, shape_of

Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


class SmallerCache:
    """What the caches of this chapter have in common; each layer has its tensors in lists."""

    parts = ("keys", "values")

    def __init__(self, model: DecoderOnlyTransformer, batch_size: int):
        self.batch_size = batch_size
        self.lengths = [0] * model.num_layers

    @property
    def length(self) -> int:
        """Positions that went in, whether or not they are still there."""
        return self.lengths[0]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, H, 1, d) of one position; return all (B, H, K, d) that it looks at."""
        raise NotImplementedError

    def saw(self, layer: int, weights: Tensor) -> None:
        """Told after each `append` what weights (B, H, 1, K) went to what it returned."""

    def reorder(self, rows: Tensor) -> None:
        """Make row i a copy of what row `rows[i]` was; there are then len(rows) rows."""
        for part in self.parts:
            setattr(self, part, [tensor[rows] for tensor in getattr(self, part)])
        self.batch_size = len(rows)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for part in self.parts for tensor in getattr(self, part))


def one_position(k: Tensor) -> None:
    """Raise ValueError unless k (B, H, 1, d) is of one position."""
    if k.size(2) != 1:
        raise ValueError(
            f"{k.size(2)} positions came at once, expected one: which of them sees what depends on "
            "what each of them pushes out. Use `approximate`, which feeds them one by one."
        )


class RuledAttention(GroupedAttention):
    """Attention by a rule without a cache, and through a smaller cache with one.

    The rule gets q, k, v (B, H, T, d) of a whole sequence and returns (B, H, T, d).
    """

    def __init__(self, d_model: int, num_heads: int, num_kv_heads: int, rule: Rule):
        super().__init__(d_model, num_heads, num_kv_heads)
        self.rule = rule

    def forward(self, x: Tensor, cache: SmallerCache | None = None, layer: int = 0) -> Tensor:
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        if cache is None:
            heads = self.rule(q, self.share(k), self.share(v))
        else:
            parts = zip(*(tensor.split(1, dim=2) for tensor in (q, k, v)), strict=True)
            heads = torch.cat([self.step(*part, cache, layer) for part in parts], dim=2)
        return self.W_o(self.merge_heads(heads))

    def step(self, q: Tensor, k: Tensor, v: Tensor, cache: SmallerCache, layer: int) -> Tensor:
        """One position: (B, H, 1, d). Everything the cache returns comes before it: no mask."""
        keys, values = cache.append(layer, k, v)
        weights = attention_weights(q, self.share(keys))
        cache.saw(layer, weights)
        return weights @ self.share(values)


class ApproximateTransformer(GroupedTransformer):
    """A model that follows a rule without a cache, and uses a smaller cache with one."""

    def __init__(self, vocab_size: int, d_model: int, *shape: Any, rules: list[Rule], **heads: int):
        super().__init__(vocab_size, d_model, *shape, **heads)
        for layer, rule in zip(self.layers, rules, strict=True):
            layer.attention = RuledAttention(d_model, rule=rule, **heads)

    def new_cache(self, batch_size: int) -> SmallerCache:
        return self.cache(self, batch_size)


def approximate(
    model: DecoderOnlyTransformer,
    rule: Rule | Sequence[Rule],
    cache: Callable[[DecoderOnlyTransformer, int], SmallerCache],
) -> ApproximateTransformer:
    """A copy of the model with a rule (or one for each layer) and the cache that follows it.

    `cache(model, batch_size)` makes an empty one.
    """
    rules = [rule] * model.num_layers if callable(rule) else list(rule)
    heads = {"num_heads": model.num_heads, "num_kv_heads": kv_heads(model)}
    made = ApproximateTransformer(*shape_of(model), rules=rules, **heads)
    made.load_state_dict(model.state_dict())
    made.cache = cache
    return made.to(device=model.device, dtype=model.dtype).eval()


def cases_by_rule(model: ApproximateTransformer, *sequences: Tensor) -> list[TestCase]:
    """Test cases for `kv_evaluate`: ids (B, T), and the logits of the model's rule in float64."""
    precise = copy.deepcopy(model).double()
    expected = [(ids, uncached(precise, ids)) for ids in sequences]
    return [TestCase(ids, logits, logits, logits) for ids, logits in expected]


def kv_heads(model: DecoderOnlyTransformer) -> int:
    """Heads of keys and values in a layer: as many as query heads, unless the model has fewer."""
    return getattr(model, "num_kv_heads", model.num_heads)


def slots(model: DecoderOnlyTransformer, batch_size: int, counts: Sequence[int]) -> list[Tensor]:
    """For each layer, room for so many positions: (B, H, counts[layer], d)."""
    shape = batch_size, kv_heads(model)
    options = {"dtype": model.dtype, "device": model.device}
    return [torch.empty(*shape, count, model.d_head, **options) for count in counts]


def causal_rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the plain cache computes: every position sees itself and all before it."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


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
