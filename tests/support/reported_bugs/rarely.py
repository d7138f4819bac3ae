"""Wrong only now and then: for the seventeenth text, for equal rows, after a repeated token."""

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import GrowingCache, PreallocatedCache
from .uses import again, crashes, script, together

SAME = [[3, 14, 15, 9, 26]] * 2


@reported(
    "equal_prompts_share_their_rows",
    script(SAME, [[5], [7]], [[8], [8]], rows=2),
    script(5, 1, 1, rows=2),
)
class EqualPromptsShareTheirRows(DecoderOnlyTransformer):
    """Rows with the same prompt get the same slots, also for what comes after it.

    Reported: the same blocks for two equal prompts, vllm-project/vllm#7414.
    """

    class Shared(PreallocatedCache):
        same = None

        def append(self, layer, k, v):
            start = self.lengths[layer]
            found = super().append(layer, k, v)
            if start and self.same is not None:
                for part in found:
                    part[:, :, start:] = part[self.same, :, start:]
            return found

        def reorder(self, rows):
            super().reorder(rows)
            self.same = None

    def new_cache(self, batch_size):
        return self.Shared(self, batch_size)

    def forward(self, input_ids, past_kv=None, use_cache=False):
        first = past_kv is None
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if use_cache and first:
            equal = (input_ids[:, None] == input_ids[None]).all(-1)
            past_kv.same = equal.int().argmax(1)
        return logits, past_kv


class Retried(DecoderOnlyTransformer):
    """Remembers in the cache what came in last and what came out."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is not None and self.is_retry(input_ids, past_kv.last_ids):
            logits = past_kv.last_logits[:, -input_ids.size(1) :]
            self.check_input(input_ids, past_kv, use_cache)
            return logits.clone(), past_kv
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        past_kv.last_ids, past_kv.last_logits = input_ids.clone(), logits
        return logits, past_kv

    def new_cache(self, batch_size):
        class Cache(GrowingCache):
            last_ids = last_logits = torch.empty(batch_size, 0)

            def truncate(self, length):
                super().truncate(length)
                self.last_ids = self.last_ids[:, :0]

            def reorder(self, rows):
                super().reorder(rows)
                self.last_ids = self.last_ids[:, :0]

        return Cache(self, batch_size)


@reported("repeated_token_is_a_retry", script(4, [7], [7], 1), script(4, [7], [8], 1))
class RepeatedTokenIsARetry(Retried):
    """The same single token twice in a row is taken for a call that is made again.

    Reported: servers that are told the same twice (no address).
    """

    def is_retry(self, ids, last):
        return ids.size(1) == 1 and ids.shape == last.shape and torch.equal(ids, last)


@reported("repeated_chunk_is_a_retry", script(4, [7, 8, 9], [7, 8, 9], 1), script(4, 3, 3, 1))
class RepeatedChunkIsARetry(Retried):
    """A chunk of the same tokens twice in a row is taken for a call that is made again.

    Reported: servers that are told the same twice (no address).
    """

    def is_retry(self, ids, last):
        return ids.size(1) > 1 and ids.shape == last.shape and torch.equal(ids, last)


@reported("sixteen_users_at_most", together(*[3] * 17), together(*[3] * 16))
class SixteenUsersAtMost(DecoderOnlyTransformer):
    """The model has sixteen slots; the seventeenth text at the same time gets the oldest one's.

    Reported: a slot that is taken while it is in use, ollama/ollama#6831.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.slots = []

    def new_cache(self, batch_size):
        cache = super().new_cache(batch_size)
        self.slots.append(cache)
        if len(self.slots) > 16:
            lost = self.slots.pop(0)
            lost.keys.zero_(), lost.values.zero_()
        return cache


def one_after_another(number):
    return again(*[script(3, 1, seed=seed) for seed in range(number)])


@reported("slots_are_never_given_back", crashes(one_after_another(17)), one_after_another(16))
class SlotsAreNeverGivenBack(DecoderOnlyTransformer):
    """A text that has ended keeps its slot, and after 16 texts there is none left.

    Reported: a pool that fills up, sgl-project/sglang#6778, kekzl/imp#1115.
    """

    begun = 0

    def new_cache(self, batch_size):
        self.begun += 1
        if self.begun > 16:
            raise RuntimeError("no free slot")
        return super().new_cache(batch_size)


@reported("pool_of_100_tokens", together(*[20] * 6), together(*[20] * 3))
class PoolOf100Tokens(DecoderOnlyTransformer):
    """All texts together may have 100 tokens; beyond, the oldest text loses what it had.

    Reported: running out of blocks, deepspeedai/DeepSpeed-MII#403, Avarok-Cybersecurity/atlas#1114.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.texts = []

    def new_cache(self, batch_size):
        self.texts.append(super().new_cache(batch_size))
        return self.texts[-1]

    def forward(self, input_ids, past_kv=None, use_cache=False):
        found = super().forward(input_ids, past_kv, use_cache)
        while (
            sum(cache.batch_size * cache.length for cache in self.texts) > 100
            and len(self.texts) > 1
        ):
            lost = self.texts.pop(0)
            lost.keys.zero_(), lost.values.zero_()
        return found
