"""Wrong caches: something is missing, or there twice (notebook 05)."""

import torch

from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer
from .entry import SOLUTION, TEACHING, CacheBug, bug
from .models import CountedCache, WithCache

BUGS: list[CacheBug] = []


@bug(
    BUGS,
    "whole_text_again",
    "all tokens are fed in again on top of the cache that already holds most of them",
    "every token is there several times, and the new ones count double",
    "with a cache, only the tokens that are not in it go in",
    SOLUTION,
)
class WholeSequenceAgain(DecoderOnlyTransformer):
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


@bug(
    BUGS,
    "prompt_dropped",
    "the prefill stores nothing",
    "the first decoded token knows nothing of the prompt",
    "the cache is filled by the first call too",
    SOLUTION,
)
class PromptDropped(DecoderOnlyTransformer):
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


class FirstTokenMissing(CountedCache):
    def append(self, layer, k, v):
        first = self.positions[layer] == 0
        found = super().append(layer, k, v)
        if first:
            self.keys[layer] = self.keys[layer][:, :, 1:]
            self.values[layer] = self.values[layer][:, :, 1:]
        return found


@bug(
    BUGS,
    "first_token_missing",
    "the first token of the text is used once and not stored",
    "every later token misses the beginning",
    "what is appended in the first call starts at position 0",
    TEACHING,
)
class FirstTokenMissingModel(WithCache):
    cache_class = FirstTokenMissing


class StaleAfterFirstStep(CountedCache):
    def append(self, layer, k, v):
        old, stored = (self.keys[layer], self.values[layer]), self.positions[layer]
        found = super().append(layer, k, v)
        if stored:
            self.keys[layer], self.values[layer] = old
        return found


@bug(
    BUGS,
    "stale",
    "the prompt is stored; what is decoded later is used once and forgotten",
    "the first decoded token is right, the second misses it",
    "the cache that comes back from the last call must go into the next",
)
class StaleModel(WithCache):
    cache_class = StaleAfterFirstStep


class AppendedTwice(CountedCache):
    def append(self, layer, k, v):
        stored = self.positions[layer]
        found = super().append(layer, k, v)
        if stored:
            self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
            self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return found


@bug(
    BUGS,
    "appended_twice",
    "each decoded token is stored twice",
    "the first decoded token is right; from the second on, earlier ones count double",
    "append is called once per layer and call",
)
class AppendedTwiceModel(WithCache):
    cache_class = AppendedTwice


class KeysOnly(GrowingCache):
    def append(self, layer, k, v):
        keys, _ = super().append(layer, k, v)
        old = torch.zeros_like(keys[:, :, : keys.size(2) - v.size(2)])
        return keys, torch.cat([old, v], dim=2)


@bug(
    BUGS,
    "values_not_cached",
    "the keys are cached, the values are not",
    "tokens look at the right places and find nothing there",
    "append both, and return both",
)
class KeysOnlyModel(WithCache):
    cache_class = KeysOnly


@bug(
    BUGS,
    "zero_taken_for_padding",
    "the cache hides every token whose id is 0, because padding has that id",
    "right for all texts without token 0",
    "padding is known by its place, not by its id",
    "QwenLM/Qwen3#814",
)
class ZeroTakenForPadding(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        logits, past_kv = super().forward(input_ids, past_kv, True)
        start = past_kv.length - input_ids.size(1)
        hidden = (input_ids == 0)[None, :, None, :, None]
        past_kv.values[:, :, :, start : past_kv.length].masked_fill_(hidden, 0.0)
        return logits, past_kv
