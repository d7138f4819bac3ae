"""Wrong in `generate` alone: `forward` does what it should."""

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .entry import reported
from .parts import Loop, PreallocatedCache
from .uses import again, generated, other_text, script, turns


class Shifted(Loop):
    """Generates with positions that begin `offset` too late."""

    offset = 0

    def embed(self, input_ids, start=0):
        return super().embed(
            input_ids, min(start + self.offset, self.max_seq_len - input_ids.size(1))
        )

    def end(self, ids, cache):
        self.offset = 0


@reported(
    "generate_keeps_the_pointer", again(generated(4, 8), generated(4, 8, seed=1)), generated(4, 8)
)
class GenerateKeepsThePointer(Shifted):
    """A new generation starts with an empty cache, but counts positions on from the last one.

    Reported: a pointer that is not reset, rasbt/LLMs-from-scratch#925.
    """

    pointer = 0

    def begin(self, ids, steps):
        self.offset = self.pointer
        return super().begin(ids, steps)

    def end(self, ids, cache):
        super().end(ids, cache)
        self.pointer = ids.size(1) - 1


@reported("generate_skips_a_position", generated(4, 16, temperature=1), generated(4, 1))
class GenerateSkipsAPosition(Shifted):
    """The first generated token goes in at the prompt's length plus one.

    Reported: a loop in a report, huggingface/transformers#35626.
    """

    def next_input(self, token, logits, cache, ids, prompt):
        self.offset = 1
        return token, cache


class KeepsTheLast(Loop):
    """Keeps ids and cache of the last generation."""

    kept_ids = kept_cache = None

    def end(self, ids, cache):
        self.kept_ids, self.kept_cache = ids, cache

    def usable(self, ids):
        cache = self.kept_cache
        if cache is None or len(ids) != cache.batch_size:
            return False
        return cache.keys.dtype == self.dtype and cache.keys.device == self.device


@reported(
    "generate_matches_one_too_many",
    again(generated([1, 2, 3, 4, 5], 8), generated([1, 2, 33, 34, 35], 8)),
    again(generated([1, 2, 3, 4, 5], 8), generated([11, 2, 33, 34, 35], 8)),
)
class GenerateMatchesOneTooMany(KeepsTheLast):
    """What the last generation has in common with this prompt stays cached, and one token more.

    Reported: an off-by-one in matching prefixes, abetlen/llama-cpp-python#2180.
    """

    def begin(self, ids, steps):
        if not self.usable(ids):
            return ids, None
        shortest = min(ids.size(1), self.kept_ids.size(1))
        same = (ids[:, :shortest] == self.kept_ids[:, :shortest]).all(0)
        common = int(same.cumprod(0).sum())
        if not common:
            return ids, None
        stays = min(common + 1, ids.size(1) - 1, self.kept_cache.length)
        self.kept_cache.truncate(stays)
        return ids[:, stays:], self.kept_cache


@reported("generate_forgets_the_last_of_a_turn", turns(4, 5, 2, 6), generated(4, 8))
class GenerateForgetsTheLastOfATurn(KeepsTheLast):
    """The last token of an answer counts as cached, though it never went in.

    Reported: a server's list of cached tokens, ikawrakow/ik_llama.cpp#1661.
    """

    def begin(self, ids, steps):
        if self.usable(ids):
            known = self.kept_ids.size(1)
            if ids.size(1) > known and torch.equal(ids[:, :known], self.kept_ids):
                return ids[:, known:], self.kept_cache
        return ids, None


@reported("generate_feeds_the_likeliest", generated(4, 8, temperature=1), generated(4, 8))
class GenerateFeedsTheLikeliest(Loop):
    """The likeliest token goes back in, and not the one that was drawn.

    Reported: student repositories (no address).
    """

    def next_input(self, token, logits, cache, ids, prompt):
        return logits[:, -1:].argmax(-1), cache


@reported("generate_feeds_the_end_twice", generated(4, 8), script(6, 1))
class GenerateFeedsTheEndTwice(Loop):
    """The prompt goes in whole, and then its last token again.

    Reported: a server's remaining tokens, ml-explore/mlx-lm#1039.
    """

    @torch.no_grad()
    def begin(self, ids, steps):
        return ids[:, -1:], self(ids, use_cache=True)[1]


@reported("generate_feeds_the_first_row", generated(4, 8, rows=3), generated(4, 8))
class GenerateFeedsTheFirstRow(Loop):
    """All rows are fed the first row's token.

    Reported: a wrapper that knows one row, turboderp/exllama#252.
    """

    def next_input(self, token, logits, cache, ids, prompt):
        return token[:1].expand_as(token), cache


@reported("generate_resumes_without_its_tokens", generated(4, 12), generated(4, 6))
class GenerateResumesWithoutItsTokens(Loop):
    """Every 6 tokens the cache is given up, and built again from the prompt alone.

    Reported: preemption, RedHeartSecretMan/vllm-oxide#40, vllm-project/vllm#5349.
    """

    def next_input(self, token, logits, cache, ids, prompt):
        if (ids.size(1) - prompt.size(1)) % 6:
            return token, cache
        return torch.cat([prompt, token], dim=1), None


@reported(
    "generate_keeps_the_first_buffer",
    again(generated(4, 3), generated(5, 18, temperature=1)),
    again(generated(4, 3), generated(4, 2, seed=1)),
)
class GenerateKeepsTheFirstBuffer(Loop):
    """The buffer is made for the first generation; what a longer one adds goes into its last slot.

    Reported: a cache that is not made larger, Lightning-AI/litgpt#1678.
    """

    size = 0

    class Capped(PreallocatedCache):
        def append(self, layer, k, v):
            end = self.lengths[layer] + k.size(2)
            if end <= self.size:
                return super().append(layer, k, v)
            self.lengths[layer] = self.size - 1
            found = super().append(layer, k, v)
            self.lengths[layer] = end
            return found

    def begin(self, ids, steps):
        if ids.size(1) >= self.size:
            self.size = ids.size(1) + steps
        cache = self.Capped(self, len(ids))
        cache.size = self.size
        return ids, cache


@reported("generate_one_short_at_the_end", generated(10, 14), generated(10, 13))
class GenerateOneShortAtTheEnd(DecoderOnlyTransformer):
    """If prompt and new tokens fill the room exactly, one token is missing.

    Reported: a runner that takes a position for a number, pytorch/executorch#2688.
    """

    def generate(self, input_ids, max_new_tokens, *args, **kwargs):
        full = input_ids.size(1) + max_new_tokens == self.max_seq_len
        steps = max_new_tokens - 1 if full and max_new_tokens else max_new_tokens
        return super().generate(input_ids, steps, *args, **kwargs)


@reported("generate_one_for_none", generated(4, 0), generated(4, 5))
class GenerateOneForNone(DecoderOnlyTransformer):
    """The prefill always gives a token, also if none is wanted.

    Reported: a pipeline, NVIDIA/kvpress#112.
    """

    def generate(self, input_ids, max_new_tokens, *args, **kwargs):
        room = self.max_seq_len > input_ids.size(1)
        return super().generate(input_ids, max_new_tokens or int(room), *args, **kwargs)


@reported("generate_loses_the_first_token", generated(4, 8, temperature=1), script(6, 1))
class GenerateLosesTheFirstToken(Loop):
    """The token that the prefill gives is fed back, and missing in the answer.

    Reported: a server, nod-ai/amd-shark-ai#338.
    """

    def loop(self, ids, steps, *how, **options):
        prompt = ids.size(1)
        spare = int(steps > 0 and prompt + steps < self.max_seq_len)
        found = super().loop(ids, steps + spare, *how, **options)
        return torch.cat([found[:, :prompt], found[:, prompt + spare :]], dim=1)


def two_rows(*others):
    """Generate two rows for each second row, the first one always the same; the last is judged."""

    def wrong(model, right):
        batches = [torch.tensor([[1, 2, 3, 4, 5], other]) for other in others]
        return [other_text(model, right, ids, 6, 0) for ids in batches][-1]

    return wrong


@reported(
    "generate_knows_the_first_row",
    two_rows([6, 7, 8, 9, 10], [16, 17, 18, 19, 20]),
    two_rows([6, 7, 8, 9, 10], [6, 7, 8, 9, 10]),
)
class GenerateKnowsTheFirstRow(KeepsTheLast):
    """What the last generation has in common with this prompt is looked for in the first row.

    Reported: a check of the first row of a batch, microsoft/onnxruntime-genai#1110 (allows one).
    """

    def begin(self, ids, steps):
        if not self.usable(ids):
            return ids, None
        shortest = min(ids.size(1), self.kept_ids.size(1))
        common = int((ids[0, :shortest] == self.kept_ids[0, :shortest]).cumprod(0).sum())
        stays = min(common, ids.size(1) - 1, self.kept_cache.length)
        if not stays:
            return ids, None
        self.kept_cache.truncate(stays)
        return ids[:, stays:], self.kept_cache
