"""Wrong after many calls, for many beams or rows, or where what is taken back is shared."""

import torch

from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import PreallocatedCache, check_rollback
from .prefixes import FIRST, PrefixStore
from .uses import again, cut, differs, pick, script, together, words


@reported("undo_of_sixteen_calls", script(2, *[1] * 18, cut(3), 2), script(2, *[1] * 14, cut(3), 2))
class UndoOfSixteenCalls(PreallocatedCache):
    """A rollback goes back by at most sixteen calls.

    Reported: checkpoints that are kept in a ring, ggml-org/llama.cpp#23589 (another fault there).
    """

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.calls = []

    def append(self, layer, k, v):
        if layer == 0:
            self.calls = [*self.calls, self.length][-16:]
        return super().append(layer, k, v)

    def truncate(self, length):
        check_rollback(length, self.length)
        if self.calls and length < self.calls[0] and self.length > length:
            for buffer in (self.keys, self.values):
                buffer[:, :, :, : self.calls[0] - length] = 0
        super().truncate(length)


@torch.no_grad()
def two_with_one_prefix(model, right):
    ids, other = words(1, 12), words(1, 12, seed=1)
    first, second = (model(ids[:, :8], use_cache=True)[1] for _ in range(2))
    first.truncate(4)
    model(other[:, 4:8], past_kv=first, use_cache=True)
    logits, _ = model(ids[:, 8:9], past_kv=second, use_cache=True)
    return differs(logits, right(ids[:, :9])[0][:, 8:])


@reported("shared_beginning_is_written_to", two_with_one_prefix, together(3, 4))
class SharedBeginningIsWrittenTo(DecoderOnlyTransformer):
    """Two texts with the same prompt share its buffer, which is copied at its end only.

    Reported: no copy on write, Avarok-Cybersecurity/atlas#1193.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prompts = {}

    class Shared(PreallocatedCache):
        shared = False

        def append(self, layer, k, v):
            if layer == 0 and self.shared and self.length >= self.prompt:
                self.keys, self.values, self.shared = self.keys.clone(), self.values.clone(), False
            return super().append(layer, k, v)

    def new_cache(self, batch_size):
        return self.Shared(self, batch_size)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache or past_kv is not None:
            return super().forward(input_ids, past_kv, use_cache)
        weights = sum(weight.detach().double().sum().item() for weight in self.parameters())
        key = str(input_ids.tolist()), self.dtype, weights
        logits, cache = super().forward(input_ids, None, True)
        cache.prompt = input_ids.size(1)
        if key in self.prompts:
            cache.keys, cache.values = self.prompts[key]
        cache.shared = True
        self.prompts[key] = cache.keys, cache.values
        return logits, cache


@torch.no_grad()
def refilled(model, right):
    ids, other = words(1, 12), words(1, 12, seed=1)
    cache = model(ids[:, :8], use_cache=True)[1]
    cache.truncate(2)
    model(other[:, 2:8], past_kv=cache, use_cache=True)
    return differs(model(ids[:, :9], use_cache=True)[0], right(ids[:, :9])[0])


@reported(
    "block_refilled_under_its_old_key", refilled, again(script(FIRST + [9]), script(FIRST + [9]))
)
class BlockRefilledUnderItsOldKey(PrefixStore):
    """A block that is written again after a rollback is still found by the words it had.

    Reported: drafts and prefixes together (no address).
    """

    def save(self, ids, cache, logits):
        for i, row in enumerate(ids):
            for end in range(self.size, len(row) + 1, self.size):
                here = slice(end - self.size, end)
                block = (
                    cache.keys[:, i, :, here],
                    cache.values[:, i, :, here],
                    logits[i, here].clone(),
                )
                self.put(self.key(row, end), block)


@reported("five_beams", script(4, pick(0, 0, 0, 0, 0, 0), 1, 1), script(4, pick(0, 0, 0, 0), 1, 1))
class FiveBeams(PreallocatedCache):
    """There is room for five beams; those after them are the first ones again.

    Reported: beam search (no address).
    """

    def reorder(self, rows):
        super().reorder(rows)
        if len(rows) > 5:
            self.keys[:, 5:] = 0


@reported(
    "padding_of_four_rows",
    script(6, 1, 1, padding=(0, 1, 2, 3, 4)),
    script(6, 1, 1, padding=(0, 1, 2, 3)),
)
class PaddingOfFourRows(LeftPaddedTransformer):
    """The padding of the fifth row on is forgotten after the prompt.

    Reported: batches of several prompts (no address).
    """

    def positions(self, columns, padding):
        if int(columns[0]):
            padding = torch.cat([padding[:4], 0 * padding[4:]])
        return super().positions(columns, padding)


@reported(
    "drop_all_but_the_last_row", script(4, pick(2), 1, 1, rows=3), script(4, pick(1), 1, rows=2)
)
class DropAllButTheLastRow(PreallocatedCache):
    """One row that stays is the second at most.

    Reported: batches of several prompts (no address).
    """

    def reorder(self, rows):
        super().reorder(rows.clamp(max=1) if len(rows) == 1 else rows)


@torch.no_grad()
def full_and_cut(model, right):
    ids, room = words(1, model.max_seq_len), model.max_seq_len
    cache = model(ids, use_cache=True)[1]
    model(words(1, 5, seed=1), use_cache=True)
    cache.truncate(room - 2)
    logits, _ = model(ids[:, -2:], past_kv=cache, use_cache=True)
    return differs(logits, right(ids)[0][:, -2:])


@reported("full_cache_is_given_back", full_and_cut, script(24, cut(20), 3))
class FullCacheIsGivenBack(DecoderOnlyTransformer):
    """A cache that has no room left has ended: the next text gets its buffer.

    Reported: pages of requests that have ended, sgl-project/sglang#38319 (given up, there).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.free = []

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        if self.free and self.free[-1].keys.shape == cache.keys.shape:
            ended = self.free.pop()
            if ended.keys.dtype == cache.keys.dtype:
                cache.keys, cache.values = ended.keys, ended.values
        return cache

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, cache = super().forward(input_ids, past_kv, use_cache)
        if use_cache and cache.length == self.max_seq_len:
            self.free.append(cache)
        return logits, cache
