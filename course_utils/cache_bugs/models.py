"""What wrong caches are made of: a model with other attention, or with other caches."""

from torch import nn

from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer


class WithAttention(DecoderOnlyTransformer):
    """A model whose attention layers are of the class `attention_class`."""

    attention_class: type[nn.Module]

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)


class WithCache(DecoderOnlyTransformer):
    """A model whose caches are of the class `cache_class`."""

    cache_class: type

    def new_cache(self, batch_size):
        return self.cache_class(self, batch_size)


class CountedCache(GrowingCache):
    """A growing cache that counts positions apart from what it holds."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.positions = [0] * len(self.keys)

    @property
    def length(self):
        return self.positions[0]

    def append(self, layer, k, v):
        self.positions[layer] += k.size(2)
        return super().append(layer, k, v)

    def truncate(self, length):
        super().truncate(length)
        self.positions = [length] * len(self.positions)
