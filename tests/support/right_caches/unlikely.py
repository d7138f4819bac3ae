"""What looks like a known mistake and is none."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import torch

from course_utils.attention import MultiHeadAttention, causal_mask
from course_utils.generation import next_token
from course_utils.kv_cache import GrowingCache, check_rollback
from course_utils.left_padding import LeftPaddedTransformer
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Repacked, WithAttention, check_room, cut, no_pairs, pick, right


@right
class EveryStateKept(DecoderOnlyTransformer):
    """The cache is a tuple of all that it ever was; a rollback takes the tuple's beginning."""

    class States:
        def __init__(self, states):
            self.states = states

        @property
        def length(self):
            return len(self.states) - 1

        def truncate(self, length):
            check_rollback(length, self.length)
            return type(self)(self.states[: length + 1])

        def reorder(self, rows):
            return type(self)(tuple(pick(pairs, rows) for pairs in self.states))

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            past_kv = self.States((no_pairs(self, len(input_ids)),))
        check_room(self, past_kv.length, input_ids.size(1))
        logits, states = [], past_kv.states
        for new in input_ids.split(1, dim=1):
            cache = GrowingCache(self, len(input_ids))
            cache.keys, cache.values = map(list, zip(*states[-1], strict=True))
            logits.append(super().forward(new, cache, True)[0])
            states = (*states, list(zip(cache.keys, cache.values, strict=True)))
        return torch.cat(logits, dim=1), self.States(states)


@right
class EqualRowsOnce(DecoderOnlyTransformer):
    """Rows of a batch with the same text so far are stored and run once, until they differ."""

    class Rows:
        def __init__(self, cache, place, ids):
            self.cache, self.place, self.ids = cache, place, ids

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        seen = input_ids if past_kv is None else torch.cat([past_kv.ids, input_ids], dim=1)
        check_room(self, 0, seen.size(1))
        texts, place = seen.unique(dim=0, return_inverse=True)
        some = torch.stack([(place == i).nonzero()[0, 0] for i in range(len(texts))])
        cache = GrowingCache(self, len(texts))
        if past_kv is not None:
            cache.keys = [keys[past_kv.place[some]] for keys in past_kv.cache.keys]
            cache.values = [values[past_kv.place[some]] for values in past_kv.cache.values]
        logits, cache = super().forward(texts[:, -input_ids.size(1) :], cache, True)
        return logits[place], self.Rows(cache, place, seen.clone())


@right
class ThreeTextsAtOnce(DecoderOnlyTransformer):
    """The numbers of three texts are kept; those of a fourth are computed again from its words."""

    class Words:
        ids = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept = []

    @torch.no_grad()
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        text = self.Words() if past_kv is None else past_kv
        known = text.ids if past_kv is not None else input_ids[:, :0]
        check_room(self, known.size(1), input_ids.size(1))
        cache = next((cache for owner, cache in self.kept if owner is text), None)
        if cache is None and past_kv is not None:
            cache = super().forward(known, None, True)[1]
        logits, cache = super().forward(input_ids, cache, True)
        text.ids = torch.cat([known, input_ids], dim=1)
        others = [(owner, kept) for owner, kept in self.kept if owner is not text]
        self.kept = [*others, (text, cache)][-3:]
        return logits, text


@right
class WeightsJoinedAnew(DecoderOnlyTransformer):
    """Keys and values come from one matrix, which is joined again when a weight has changed."""

    class attention_class(MultiHeadAttention):
        joined = None

        def both(self):
            parts = self.W_k.weight, self.W_v.weight
            now = [(id(part), part._version, part.dtype, part.device) for part in parts]
            if self.joined is None or self.joined[0] != now:
                self.joined = now, torch.cat([part.detach() for part in parts])
            return self.joined[1]

        def forward(self, x, cache=None, layer=0):
            if cache is None:
                return super().forward(x)
            q = self.split_heads(self.W_q(x))
            k, v = (x @ self.both().T).chunk(2, dim=-1)
            k, v = cache.append(layer, self.split_heads(k), self.split_heads(v))
            return self.W_o(self.merge_heads(self.attend(q, k, v)))

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)


@right
class OneSlotGivenBack(DecoderOnlyTransformer):
    """A call takes the only slot and gives it back, also when it fails."""

    free = True

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not self.free:
            raise RuntimeError("no free slot")
        self.free = False
        try:
            return super().forward(input_ids, past_kv, use_cache)
        finally:
            self.free = True


@right
class PaddedMaskByPadding(LeftPaddedTransformer):
    """Masks of padded batches are kept for later, by their shape and the padding itself."""

    class attention_class(LeftPaddedTransformer.attention_class):
        def mask(self, num_queries, num_keys, padding):
            kept = self.__dict__.setdefault("kept", {})
            key = num_queries, num_keys, tuple(padding.tolist()), padding.device
            if key not in kept:
                kept[key] = super().mask(num_queries, num_keys, padding)
            return kept[key]


@right
class ScaledKeys(WithAttention):
    """Keys are kept divided by the square root of their size already."""

    class attention_class(MultiHeadAttention):
        def forward(self, x, cache=None, layer=0):
            if cache is None:
                return super().forward(x)
            q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
            k, v = cache.append(layer, k / q.size(-1) ** 0.5, v)
            mask = causal_mask(q.size(2), k.size(2), q.device)
            scores = (q @ k.transpose(2, 3)).masked_fill(~mask, -torch.inf)
            return self.W_o(self.merge_heads(scores.softmax(-1) @ v))


@right
class InAnEventLoop(DecoderOnlyTransformer):
    """Every call runs in an event loop and a thread of its own."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        async def soon():
            await asyncio.sleep(0)
            return super(InAnEventLoop, self).forward(input_ids, past_kv, use_cache)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, soon()).result()


@right
class PromptByEights(DecoderOnlyTransformer):
    """Its generate feeds the prompt in eights; what is left over may be none."""

    @torch.no_grad()
    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, generator=None):
        if not use_cache or not max_new_tokens:
            how = {"temperature": temperature, "generator": generator}
            return super().generate(input_ids, max_new_tokens, use_cache=use_cache, **how)
        ids, cache = input_ids, None
        for chunk in input_ids.split(8, dim=1):
            logits, cache = self(chunk, past_kv=cache, use_cache=True)
        for number in range(max_new_tokens):
            if number:
                logits, cache = self(ids[:, -1:], past_kv=cache, use_cache=True)
            token = next_token(logits[:, -1], temperature, generator=generator)
            ids = torch.cat([ids, token[:, None]], dim=1)
        return ids


@right
class CutBeforeItIsJoined(Repacked):
    """The cache holds what came in, uncut, and how much of it counts."""

    def pack(self, pairs):
        return Counting(pairs, pairs[0][0].size(2))

    def unpack(self, past_kv):
        return cut(past_kv.pairs, past_kv.count)


class Counting:
    def __init__(self, pairs, count):
        self.pairs, self.count = pairs, count

    def truncate(self, length):
        check_rollback(length, self.count)
        self.count = length

    def reorder(self, rows):
        self.pairs = pick(self.pairs, rows)


@right
class RowsCopiedForLater(GrowingCache):
    """A reorder is put off until the next token, with a copy of the caller's rows."""

    waiting = None

    def settle(self):
        if self.waiting is not None:
            rows, self.waiting = self.waiting, None
            super().reorder(rows)

    def append(self, layer, k, v):
        self.settle()
        return super().append(layer, k, v)

    def truncate(self, length):
        self.settle()
        super().truncate(length)

    def reorder(self, rows):
        self.waiting = rows.clone() if self.waiting is None else self.waiting[rows]
        self.batch_size = len(rows)


@right
class RefusesAfterwards(Repacked):
    """All is computed first, at clamped positions; then what had no room is thrown away."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        stored = 0 if past_kv is None else past_kv[0][0].size(2)
        if stored + input_ids.size(1) > self.max_seq_len:
            super().forward(input_ids[:, : self.max_seq_len - stored], past_kv, use_cache)
            raise ValueError("That was too much.")
        return super().forward(input_ids, past_kv, use_cache)


@right
class NewestFirst(WithAttention):
    """Whatever comes is put before what was there, chunk by chunk, and the mask knows where."""

    class attention_class(MultiHeadAttention):
        def forward(self, x, cache=None, layer=0):
            if cache is None:
                return super().forward(x)
            q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
            keys, values = cache.append(layer, k, v)
            new, order = k.size(2), torch.arange(keys.size(2), device=x.device).roll(k.size(2))
            mask = causal_mask(new, keys.size(2), x.device)[:, order]
            scores = (q / q.size(-1) ** 0.5) @ keys[:, :, order].transpose(2, 3)
            weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
            return self.W_o(self.merge_heads(weights @ values[:, :, order]))
