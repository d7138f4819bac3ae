"""Wrong caches: two generations have one cache between them (notebook 05)."""

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
