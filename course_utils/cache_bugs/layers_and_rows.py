"""Wrong caches: what is read is that of another layer, head or row (notebook 05)."""

from ..kv_cache import GrowingCache, PreallocatedCache
from ..transformer import DecoderOnlyTransformer
from .entry import TEACHING, CacheBug, bug
from .models import WithCache

BUGS: list[CacheBug] = []


class OneLayerForAll(GrowingCache):
    def append(self, layer, k, v):
        return super().append(0, k, v) if layer == 0 else (self.keys[0], self.values[0])


@bug(
    BUGS,
    "one_layer_for_all",
    "every layer reads the first layer's keys and values",
    "wrong from the first token on in a model of more than one layer",
    "the layer's number must reach append",
)
class OneLayerForAllModel(WithCache):
    cache_class = OneLayerForAll


@bug(
    BUGS,
    "last_block_for_all",
    "with a cache, every layer runs with the last block's weights",
    "wrong from the first cached token on in a model of more than one layer",
    "the loop over the layers: which block does each round call?",
    TEACHING,
)
class LastBlockForAll(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids, past_kv)
        self.check_input(input_ids, past_kv, use_cache)
        past_kv = past_kv or self.new_cache(input_ids.size(0))
        x = self.embed(input_ids, past_kv.length)
        for i in range(self.num_layers):
            x = self.layers[-1](x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv


class HeadsRotated(GrowingCache):
    def append(self, layer, k, v):
        self.keys[layer] = self.keys[layer].roll(1, dims=1)
        self.values[layer] = self.values[layer].roll(1, dims=1)
        return super().append(layer, k, v)


@bug(
    BUGS,
    "heads_mixed_up",
    "stored keys and values come back under another head",
    "right with one head; with more, each head reads another head's past",
    "the order of the dimensions when you store, and when you read",
)
class HeadsMixedUp(WithCache):
    cache_class = HeadsRotated


class SharedRows(PreallocatedCache):
    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        return keys[:1].expand_as(keys), values[:1].expand_as(values)


@bug(
    BUGS,
    "rows_shared",
    "all rows of a batch read the first row's cache",
    "right for one sequence, wrong for the second row of a batch",
    "the batch dimension must be stored and read in full",
)
class SharedRowsModel(WithCache):
    cache_class = SharedRows
