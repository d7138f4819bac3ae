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
    "right for prompts of equal length; else the shorter ones attend to the keys of padding",
    "the mask of every later call must hide the padding too",
)
class PaddingInSightModel(LeftPaddedTransformer):
    attention_class = PaddingInSight


@bug(
    BUGS,
    "padding_counted",
    "in decoding, positions count the padding",
    "right for prompts of equal length; else the shorter ones jump ahead",
    "positions count from each row's first real token, in every call",
)
class PaddingCounted(LeftPaddedTransformer):
    def positions(self, columns, padding):
        return super().positions(columns, padding if columns[0] == 0 else 0 * padding)


class FirstRowRolledBack(GrowingCache):
    def truncate(self, length):
        end = self.length
        kept = [(keys[1:, :, length:end], v[1:, :, length:end]) for keys, v in self.pairs()]
        super().truncate(length)
        self.guesses = kept

    def pairs(self):
        return zip(self.keys, self.values, strict=True)

    def append(self, layer, k, v):
        guesses = getattr(self, "guesses", None)
        if guesses is not None and guesses[layer][0].size(2) >= k.size(2):
            new = k.size(2)
            k = torch.cat([k[:1], guesses[layer][0][:, :, :new]])
            v = torch.cat([v[:1], guesses[layer][1][:, :, :new]])
        found = super().append(layer, k, v)
        if layer == len(self.keys) - 1:
            self.guesses = None
        return found


@bug(
    BUGS,
    "rollback_of_the_first_row",
    "a rollback takes back the first row's guesses; in the other rows they stay",
    "right for one sequence; of several rows, all but the first go on from wrong guesses",
    "truncate cuts along the positions, in all rows",
    "Blaizzy/mlx-vlm#1155",
)
class FirstRowRolledBackModel(WithCache):
    cache_class = FirstRowRolledBack


class RolledBackOnce(GrowingCache):
    def truncate(self, length):
        if getattr(self, "rolled_back", False) and length:
            return
        super().truncate(length)
        self.rolled_back = True


@bug(
    BUGS,
    "rollback_works_once",
    "a second rollback on the same cache is ignored",
    "right for the first guess that proves wrong; from the second on, wrong guesses stay",
    "state that is set by a rollback and never set back",
    "ml-explore/mlx-lm#1528",
)
class RolledBackOnceModel(WithCache):
    cache_class = RolledBackOnce
