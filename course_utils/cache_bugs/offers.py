"""Wrong caches: wrong in what not every cache offers, rollback and padding (notebook 05)."""

import torch

from ..kv_cache import GrowingCache, PreallocatedCache
from ..left_padding import LeftPaddedAttention, LeftPaddedTransformer
from .entry import CacheBug, bug
from .models import CountedCache, WithCache

BUGS: list[CacheBug] = []


class RolledBackInOneLayer(PreallocatedCache):
    def truncate(self, length):
        self.lengths[0] = length


@bug(
    BUGS,
    "rollback_of_one_layer",
    "a rollback sets back the first layer only",
    "right until guesses are taken back; then the deeper layers still hold them",
    "every layer has a length of its own, and all of them are set back",
)
class RolledBackInOneLayerModel(WithCache):
    cache_class = RolledBackInOneLayer


class PositionsNotRolledBack(CountedCache):
    def truncate(self, length):
        GrowingCache.truncate(self, length)


@bug(
    BUGS,
    "rollback_keeps_position",
    "a rollback drops keys and values, but the count of positions goes on",
    "right until guesses are taken back; then new tokens get positions that are too high",
    "the counter of positions: it must go back when the keys do",
)
class PositionsNotRolledBackModel(WithCache):
    cache_class = PositionsNotRolledBack


class PaddingInSight(LeftPaddedAttention):
    def mask(self, num_queries, num_keys, padding):
        if num_queries < num_keys:
            padding = torch.zeros_like(padding)
        return super().mask(num_queries, num_keys, padding)


@bug(
    BUGS,
    "padding_in_sight",
    "the padding of a batch is masked in the prefill and forgotten in decoding",
    "right for prompts of equal length; of several, the shorter ones attend to nothing's keys",
    "the mask of every later call must hide the padding too",
)
class PaddingInSightModel(LeftPaddedTransformer):
    attention_class = PaddingInSight


@bug(
    BUGS,
    "padding_counted",
    "in decoding, positions count the padding",
    "right for prompts of equal length; of several, the shorter ones jump ahead",
    "positions count from each row's first real token, in every call",
)
class PaddingCounted(LeftPaddedTransformer):
    def positions(self, columns, padding):
        return super().positions(columns, padding if columns[0] == 0 else 0 * padding)
