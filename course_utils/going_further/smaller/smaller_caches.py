"""Caches that keep less, each with the rule that says what it is meant to compute (chapter 09).

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
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attention import attention_weights
from ...evaluation import TestCase, uncached
from ...transformer import DecoderOnlyTransformer
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
