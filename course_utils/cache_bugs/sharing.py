"""Wrong caches: two generations have one cache between them (notebook 05)."""

import torch

from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer
from .entry import CacheBug, bug

BUGS: list[CacheBug] = []


@bug(
    BUGS,
    "leaks_into_the_next",
    "the model keeps its cache, and a new generation does not empty it",
    "the first generation is right, the second has the first one's text before it",
    "a call without past_kv must begin with an empty cache",
)
class Leaking(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        if not hasattr(self, "kept") or self.kept.keys[0].size(0) != batch_size:
            self.kept = GrowingCache(self, batch_size)
        return self.kept


@bug(
    BUGS,
    "one_cache_per_model",
    "the model keeps one cache, which each new generation empties",
    "generations one after the other are right; two at the same time overwrite each other",
    "past_kv must hold the cache itself, not a sign that there is one",
)
class OneCachePerModel(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        logits, self.kept = super().forward(input_ids, self.kept if past_kv else None, True)
        return logits, "there is one"


@bug(
    BUGS,
    "prefix_without_its_beginning",
    "the keys and values of four tokens are looked up by these tokens and their place alone",
    "right until two texts share words behind different beginnings; the second gets the first's",
    "a key depends on all tokens before it: all of them belong in the name it is kept under",
    "vllm-project/aibrix#2329",
)
class PrefixWithoutItsBeginning(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        fresh = use_cache and past_kv is None
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if not fresh:
            return logits, past_kv
        if not hasattr(self, "blocks"):
            self.blocks = {}
        for start in range(0, input_ids.size(1) - 3, 4):
            for row, ids in enumerate(input_ids[:, start : start + 4].tolist()):
                self.look_up((start, *ids), past_kv, row, slice(start, start + 4))
        return logits, past_kv

    def look_up(self, name, cache, row, block):
        stored = [cache.keys[:, row, :, block], cache.values[:, row, :, block]]
        found = self.blocks.setdefault(name, torch.stack(stored))
        cache.keys[:, row, :, block], cache.values[:, row, :, block] = found


@bug(
    BUGS,
    "two_caches_only",
    "the model holds two caches, and a third generation takes the place of the first",
    "right for up to two users at the same time",
    "how many generations may be under way: where is the first one's cache when the third begins?",
    "ggml-org/llama.cpp#27148",
)
class TwoCachesOnly(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        if not hasattr(self, "slots"):
            self.slots, self.turn = [None, None], 0
        slot, self.turn = self.turn % 2, self.turn + 1
        if self.slots[slot] is not None:
            self.slots[slot].keys = [t.flip(2) for t in self.slots[slot].keys]
        self.slots[slot] = GrowingCache(self, batch_size)
        return self.slots[slot]
