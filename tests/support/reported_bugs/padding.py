"""Wrong for prompts of different length, padded on the left."""

import torch

from course_utils.left_padding import (
    LeftPaddedAttention,
    LeftPaddedCache,
    LeftPaddedTransformer,
)

from .entry import reported
from .parts import PreallocatedCache
from .uses import State, again, cut, off, pick, script, words

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


@torch.no_grad()
def two_padded(model, right):
    first, second = torch.tensor([0, 3]), torch.tensor([2, 0])
    one, other = model.padded_cache(first), model.padded_cache(second)
    states = [State(words(2, 0), one, first), State(words(2, 0), other, second)]
    for number, chunk in enumerate((6, 1, 1)):
        for state in states:
            new = words(2, chunk, number)
            state.seen = torch.cat([state.seen, new], dim=1)
            logits, state.cache = model(new, past_kv=state.cache, use_cache=True)
            if off(logits, right, state):
                return True
    return False


@reported("padding_of_the_newest_batch", two_padded, DECODED)
class PaddingOfTheNewestBatch(LeftPaddedTransformer):
    """How much padding the rows have is kept in the model, for the batch that was begun last.

    Reported: a mask that is an attribute of the model (no address).
    """

    def padded_cache(self, padding):
        self.newest = padding
        return super().padded_cache(padding)

    def positions(self, columns, padding):
        newest = self.newest if self.newest.shape == padding.shape else padding
        return super().positions(columns, newest)


@reported(
    "padded_mask_kept_by_shape",
    again(script(6, 1, padding=(0, 3)), script(6, 1, padding=(3, 0))),
    DECODED,
)
class PaddedMaskKeptByShape(LeftPaddedTransformer):
    """Masks of padded batches are kept for later, by their shape.

    Reported: masks that might be used again, meta-pytorch/attention-gym#80.
    """

    class attention_class(LeftPaddedTransformer.attention_class):
        def mask(self, num_queries, num_keys, padding):
            kept = self.__dict__.setdefault("kept", {})
            key = num_queries, num_keys, len(padding), padding.device
            if key not in kept:
                kept[key] = super().mask(num_queries, num_keys, padding)
            return kept[key]


@reported("padding_in_four_bits", script(24, 1, padding=(0, 20)), DECODED, room=64)
class PaddingInFourBits(LeftPaddedTransformer):
    """How much padding a row has is kept in four bits.

    Reported: whole blocks of padding, torch-spyre/sendnn-inference#993.
    """

    def padded_cache(self, padding):
        return LeftPaddedCache(self, padding % 16)


@reported("equal_padding_is_none", script(6, 1, padding=(3, 3)), DECODED)
class EqualPaddingIsNone(LeftPaddedTransformer):
    """If all rows have the same padding, or there is one row, the mask is that of no padding.

    Reported: Blaizzy/mlx-vlm#1946 (rows of one size), huggingface/transformers#47651 (one row).
    """

    class attention_class(LeftPaddedTransformer.attention_class):
        def mask(self, num_queries, num_keys, padding):
            if (padding == padding[0]).all():
                padding = torch.zeros_like(padding)
            return super().mask(num_queries, num_keys, padding)


@torch.no_grad()
def same_padding_twice(model, right):
    padding = torch.tensor([0, 3])
    state = State(words(2, 6), model.padded_cache(padding), torch.tensor([0, 3]))
    other = model.padded_cache(padding)
    for cache in (state.cache, other):
        model(state.seen, past_kv=cache, use_cache=True)
    other.reorder(torch.tensor([1, 0]))
    new = words(2, 1, seed=1)
    state.seen = torch.cat([state.seen, new], dim=1)
    return off(model(new, past_kv=state.cache, use_cache=True)[0], right, state)


@reported("padding_changed_for_the_caller", same_padding_twice, DECODED)
class PaddingChangedForTheCaller(WithPaddedCache):
    """A reorder writes into the tensor that the caller gave, and may give for another batch.

    Reported: an offset that is changed in place, ml-explore/mlx-lm#1699.
    """

    class cache_class(LeftPaddedCache):
        def reorder(self, rows):
            given = self.padding
            super().reorder(rows)
            if given.shape == self.padding.shape:
                self.padding = given.copy_(self.padding)
