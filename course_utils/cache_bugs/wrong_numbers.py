"""Wrong caches: the right tokens, stored as the wrong numbers (notebook 05)."""

from ..kv_cache import GrowingCache, PreallocatedCache
from ..transformer import DecoderOnlyTransformer
from .entry import CacheBug, bug
from .models import WithCache

BUGS: list[CacheBug] = []


@bug(
    BUGS,
    "keys_before_position",
    "the keys of the prompt are stored before its positions are added",
    "cached keys carry no position",
    "what is stored is made from the same x that the layer attends with",
)
class BeforePosition(DecoderOnlyTransformer):
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


class HalfPrecision(GrowingCache):
    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        self.keys[layer] = self.keys[layer].half().to(k.dtype)
        self.values[layer] = self.values[layer].half().to(v.dtype)
        return found


@bug(
    BUGS,
    "stored_in_float16",
    "keys and values are stored in float16, whatever the model's dtype is",
    "words look right; logits are off in the third or fourth decimal",
    "the dtype of the cache is the model's",
)
class HalfPrecisionModel(WithCache):
    cache_class = HalfPrecision


class DefaultDtype(PreallocatedCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.keys, self.values = self.keys.float(), self.values.float()


@bug(
    BUGS,
    "cache_in_default_dtype",
    "the cache is allocated without saying which dtype",
    "right in float32; an error in float64, float16 and bfloat16",
    "torch.empty(..., dtype=model.dtype, device=model.device)",
)
class DefaultDtypeModel(WithCache):
    cache_class = DefaultDtype
