"""Ways in which a cache goes wrong, each a few lines on top of the right one.

`WRONG` names them. Each class takes the course's weights: `load_model(model_class=...)`.
"""

import torch
from torch import nn

from .attention import MultiHeadAttention, attention
from .kv_cache import GrowingCache, PreallocatedCache
from .transformer import DecoderOnlyTransformer


class WrongAttention(MultiHeadAttention):
    """An attention layer whose mask a subclass gets wrong."""

    def wrong_mask(self, num_queries, num_keys):
        raise NotImplementedError

    def attend(self, q, k, v):
        num_queries, num_keys = q.size(-2), k.size(-2)
        if num_queries == num_keys:
            return super().attend(q, k, v)
        return attention(q, k, v, self.wrong_mask(num_queries, num_keys))


def shifted_mask(num_queries, num_keys, shift):
    """The right mask with every query seeing `shift` keys more (or fewer)."""
    offset = num_keys - num_queries + shift
    return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(offset)


class NoMaskOffset(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, num_queries - num_keys)


class MaskOneTooFar(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, 1)


class MaskOneTooShort(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, -1)


class UnmaskedAppend(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return None


class WithAttention(DecoderOnlyTransformer):
    """A model whose attention layers are of the class `attention_class`."""

    attention_class: type[nn.Module]

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)


class NoPositionOffset(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, 0)


class NoMaskOffsetModel(WithAttention):
    attention_class = NoMaskOffset


class MaskOneTooFarModel(WithAttention):
    attention_class = MaskOneTooFar


class MaskOneTooShortModel(WithAttention):
    attention_class = MaskOneTooShort


class UnmaskedAppendModel(WithAttention):
    attention_class = UnmaskedAppend


class WholeSequenceAgain(DecoderOnlyTransformer):
    """Keeps the ids, and feeds all of them on top of the cache that already holds most."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        seen, cache = past_kv or (input_ids[:, :0], None)
        ids = torch.cat([seen, input_ids], dim=1)
        x = self.embed(ids)
        cache = cache or GrowingCache(self, ids.size(0))
        for i, layer in enumerate(self.layers):
            x = layer(x, cache, i)
        logits = self.output_projection(self.norm(x))
        return logits[:, -input_ids.size(1) :], (ids, cache)


class PromptDropped(DecoderOnlyTransformer):
    """The prompt is run without storing anything; positions are counted all the same."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            return super().forward(input_ids)[0], (input_ids.size(1), None)
        start, cache = past_kv
        cache = cache or GrowingCache(self, input_ids.size(0))
        x = self.embed(input_ids, start)
        for i, layer in enumerate(self.layers):
            x = layer(x, cache, i)
        return self.output_projection(self.norm(x)), (start + input_ids.size(1), cache)


class KeysOnly(GrowingCache):
    def append(self, layer, k, v):
        keys, _ = super().append(layer, k, v)
        old = torch.zeros_like(keys[:, :, : keys.size(2) - v.size(2)])
        return keys, torch.cat([old, v], dim=2)


class OneLayerForAll(GrowingCache):
    def append(self, layer, k, v):
        return super().append(0, k, v) if layer == 0 else (self.keys[0], self.values[0])


class StaleAfterFirstStep(GrowingCache):
    """The first call is stored; what later calls add is used once and forgotten."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.positions = [0] * len(self.keys)

    @property
    def length(self):
        return self.positions[0]

    def append(self, layer, k, v):
        old = self.keys[layer], self.values[layer]
        found = super().append(layer, k, v)
        if self.positions[layer]:
            self.keys[layer], self.values[layer] = old
        self.positions[layer] += k.size(2)
        return found


class SharedRows(PreallocatedCache):
    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        return keys[:1].expand_as(keys), values[:1].expand_as(values)


class WithCache(DecoderOnlyTransformer):
    cache_class: type

    def new_cache(self, batch_size):
        return self.cache_class(self, batch_size)


class KeysOnlyModel(WithCache):
    cache_class = KeysOnly


class OneLayerForAllModel(WithCache):
    cache_class = OneLayerForAll


class StaleModel(WithCache):
    cache_class = StaleAfterFirstStep


class SharedRowsModel(WithCache):
    cache_class = SharedRows


class Leaking(DecoderOnlyTransformer):
    """The cache is the model's own; a new generation does not empty it, only counts from 0."""

    def new_cache(self, batch_size):
        if not hasattr(self, "kept") or self.kept.keys[0].size(0) != batch_size:
            self.kept = GrowingCache(self, batch_size)
        return self.kept


class BeforePosition(DecoderOnlyTransformer):
    """Cached keys lack the position that was added to their token."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is not None and past_kv.length:
            return super().forward(input_ids, past_kv, use_cache)
        logits, _ = super().forward(input_ids)
        past_kv = self.new_cache(input_ids.size(0))
        x = self.token_embedding(input_ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return logits, past_kv


WRONG = {
    "no position offset on decode": NoPositionOffset,
    "no mask offset": NoMaskOffsetModel,
    "mask offset one too far": MaskOneTooFarModel,
    "mask offset one too short": MaskOneTooShortModel,
    "whole sequence fed again": WholeSequenceAgain,
    "prompt dropped": PromptDropped,
    "keys cached, values not": KeysOnlyModel,
    "one layer's cache for all": OneLayerForAllModel,
    "leaks into the next generation": Leaking,
    "batch rows share one cache": SharedRowsModel,
    "stale after the first step": StaleModel,
    "keys stored before the position": BeforePosition,
    "multi-token append unmasked": UnmaskedAppendModel,
}
