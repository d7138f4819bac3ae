"""Wrong for prompts of different length, padded on the left."""

import torch

from course_utils.left_padding import (
    LeftPaddedAttention,
    LeftPaddedCache,
    LeftPaddedTransformer,
)

from .entry import reported
from .parts import PreallocatedCache
from .uses import cut, pick, script

PLAIN = script(6, 1, 2, padding=(0, 0))
DECODED = script(6, 1, 1, padding=(0, 3))


class WithPaddedCache(LeftPaddedTransformer):
    """A model whose caches for padded batches are of the class `cache_class`."""

    def padded_cache(self, padding):
        return self.cache_class(self, padding)


@reported("columns_are_positions", DECODED, PLAIN)
class ColumnsArePositions(LeftPaddedTransformer):
    """All rows get the positions of the columns, padding counted in.

    Reported: a library for fine-tuning, unslothai/unsloth#3803.
    """

    def positions(self, columns, padding):
        return super().positions(columns, 0 * padding)


@reported("positions_of_the_first_row", DECODED, PLAIN)
class PositionsOfTheFirstRow(LeftPaddedTransformer):
    """One offset of the positions for the whole batch: the first row's.

    Reported: batches that need an offset for each row, turboderp-org/exllamav2#606.
    """

    def positions(self, columns, padding):
        return super().positions(columns, padding[:1].expand_as(padding))


@reported("padding_seen_by_chunks", script(6, 2, padding=(0, 3)), DECODED)
class PaddingSeenByChunks(LeftPaddedTransformer):
    """The mask of a chunk on a filled cache forgets the padding.

    Reported: attention in chunks, huggingface/transformers#40324.
    """

    class attention_class(LeftPaddedAttention):
        def mask(self, num_queries, num_keys, padding):
            if 1 < num_queries < num_keys:
                padding = 0 * padding
            return super().mask(num_queries, num_keys, padding)


@reported("padding_lost_in_a_rollback", script(8, cut(7), 1, padding=(0, 3)), DECODED)
class PaddingLostInARollback(WithPaddedCache):
    """A rollback sets back keys and values, and the rows' padding is lost.

    Reported: speculative decoding of a batch, Blaizzy/mlx-vlm#1144.
    """

    class cache_class(LeftPaddedCache):
        def truncate(self, length):
            super().truncate(length)
            self.padding = torch.zeros_like(self.padding)


@reported("padding_not_reordered", script(6, pick(1, 0), 1, padding=(0, 3)), DECODED)
class PaddingNotReordered(WithPaddedCache):
    """Keys and values are reordered, the rows' padding is not.

    Reported: batches that rows leave, Blaizzy/mlx-vlm#1889.
    """

    class cache_class(LeftPaddedCache):
        def reorder(self, rows):
            PreallocatedCache.reorder(self, rows)


@reported("appended_at_the_longest_row", script(6, pick(1), 1, padding=(0, 3)), DECODED)
class AppendedAtTheLongestRow(WithPaddedCache):
    """New columns go where the longest text ends, which is too early once every row has padding.

    Reported: a server for laptops, jundot/omlx#2201.
    """

    class cache_class(LeftPaddedCache):
        def append(self, layer, k, v):
            stored = self.lengths[layer]
            if stored:
                self.lengths[layer] -= int(self.padding.min())
            found = super().append(layer, k, v)
            self.lengths[layer] = stored + k.size(2)
            return found
