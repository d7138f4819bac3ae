"""The model keeps the numbers, and `past_kv` says which; what is shared is never mixed up."""

import weakref

import torch

from course_utils.attention import MultiHeadAttention
from course_utils.kv_cache import check_rollback
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Joined, WithAttention, check_room, no_pairs, right, run


@right
class NumberOfACache(DecoderOnlyTransformer):
    """The model keeps every cache it ever began, and past_kv is a number, the first of them 0."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kept = []

    @torch.no_grad()
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            self.check_input(input_ids, None, use_cache)
            self.kept.append(self.new_cache(input_ids.size(0)))
            past_kv = len(self.kept) - 1
        logits, _ = super().forward(input_ids, self.kept[past_kv], use_cache=True)
        return logits, past_kv


class Handle:
    """Which rows of the model's buffer a cache has."""

    def __init__(self, rows):
        self.rows, self.batch_size, self.length = rows, len(rows), 0

    def truncate(self, length):
        check_rollback(length, self.length)
        self.length = length


class Window:
    """A call's view on a model's buffer."""

    def __init__(self, buffer, handle):
        self.buffer, self.rows, self.start = buffer, handle.rows, handle.length

    def append(self, layer, k, v):
        end = self.start + k.size(2)
        self.buffer[self.rows, layer, 0, :, self.start : end] = k.detach()
        self.buffer[self.rows, layer, 1, :, self.start : end] = v.detach()
        kept = self.buffer[self.rows, layer]
        return kept[:, 0, :, :end], kept[:, 1, :, :end]


@right
class RowsOfABuffer(DecoderOnlyTransformer):
    """Keys and values are in a buffer of the model; past_kv holds row numbers, later used again."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        shape = (0, self.num_layers, 2, self.num_heads, self.max_seq_len, self.d_head)
        self.register_buffer("store", torch.zeros(shape), persistent=False)
        self.free = []

    @torch.inference_mode(False)
    def new_cache(self, batch_size):
        while len(self.free) < batch_size:
            self.free.append(len(self.store))
            self.store = torch.cat([self.store, self.store.new_zeros((1, *self.store.shape[1:]))])
        rows = [self.free.pop(0) for _ in range(batch_size)]
        handle = Handle(rows)
        weakref.finalize(handle, self.free.extend, rows)
        return handle

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        self.check_input(input_ids, past_kv, use_cache)
        past_kv = past_kv or self.new_cache(input_ids.size(0))
        logits = run(self, input_ids, past_kv.length, Window(self.store, past_kv))
        past_kv.length += input_ids.size(1)
        return logits, past_kv


class Remembering(MultiHeadAttention):
    def __init__(self, d_model, num_heads):
        super().__init__(d_model, num_heads)
        self.kept = weakref.WeakKeyDictionary()

    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        new = [self.split_heads(W(x)) for W in (self.W_k, self.W_v)]
        if cache in self.kept:
            old = [part[:, :, : cache.length] for part in self.kept[cache]]
            new = [torch.cat(both, dim=2) for both in zip(old, new, strict=True)]
        self.kept[cache] = [part.detach() for part in new]
        q = self.split_heads(self.W_q(x))
        return self.W_o(self.merge_heads(self.attend(q, *new)))


@right
class LayersRemember(WithAttention):
    """Each attention layer keeps its keys and values by cache, as long as the cache is alive."""

    attention_class = Remembering

    def new_cache(self, batch_size):
        return Handle(range(batch_size))

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        if use_cache:
            past_kv.length += input_ids.size(1)
        return logits, past_kv


class Prefix:
    def __init__(self, pairs):
        self.store = Joined(pairs)

    @property
    def length(self):
        return self.store.pairs[0][0].size(2)


@right
class PrefixStore(DecoderOnlyTransformer):
    """A new text goes on from the longest of its beginnings that was seen with the same weights."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen, self.weights = {}, []

    def forget_other_weights(self):
        now = list(self.parameters())
        same = len(now) == len(self.weights) and all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
            for a, b in zip(now, self.weights, strict=True)
        )
        if not same:
            self.seen, self.weights = {}, [weight.detach().clone() for weight in now]

    def longest(self, input_ids):
        """Logits and pairs of the longest beginning that has been seen."""
        rows = input_ids.tolist()
        for length in range(input_ids.size(1), 0, -1):
            found = self.seen.get(str([row[:length] for row in rows]))
            if found:
                return found
        nothing = input_ids.new_zeros((len(rows), 0, self.token_embedding.num_embeddings))
        return nothing.to(self.dtype), no_pairs(self, len(rows))

    @torch.no_grad()
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        check_room(self, past_kv.length if past_kv else 0, input_ids.size(1))
        if past_kv:
            return run(self, input_ids, past_kv.length, past_kv.store), past_kv
        self.forget_other_weights()
        logits, pairs = self.longest(input_ids)
        past_kv = Prefix(pairs)
        if logits.size(1) < input_ids.size(1):
            rest = input_ids[:, logits.size(1) :]
            more = run(self, rest, logits.size(1), past_kv.store)
            logits = torch.cat([logits, more], dim=1)
            self.seen[str(input_ids.tolist())] = logits, list(past_kv.store.pairs)
        return logits.clone(), past_kv
