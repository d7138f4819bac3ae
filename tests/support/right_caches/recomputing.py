"""Caches that hold something else than keys and values, from which these are computed again."""

import math

import torch

from course_utils.attention import MultiHeadAttention, causal_mask
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Joined, Repacked, WithAttention, check_room, cut, no_pairs, right, run


class Inputs:
    """What came into each attention layer: (B, K, D)."""

    def __init__(self, model, batch_size):
        self.batch_size = batch_size
        weight = model.token_embedding.weight
        self.kept = [weight.detach().new_empty((batch_size, 0, weight.size(1)))] * model.num_layers

    @property
    def length(self):
        return self.kept[0].size(1)

    def join(self, layer, x):
        self.kept[layer] = torch.cat([self.kept[layer], x], dim=1)
        return self.kept[layer]

    def truncate(self, length):
        self.kept = [x[:, :length] for x in self.kept]

    def reorder(self, rows):
        self.kept = [x[rows] for x in self.kept]
        self.batch_size = len(rows)


class FromInputs(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        everything = cache.join(layer, x)
        k, v = (self.split_heads(W(everything)) for W in (self.W_k, self.W_v))
        q = self.split_heads(self.W_q(x))
        return self.W_o(self.merge_heads(self.attend(q, k, v)))


@right
class LayerInputs(WithAttention):
    """The layers' inputs are kept, and keys and values computed from them in each call."""

    attention_class = FromInputs

    def new_cache(self, batch_size):
        return Inputs(self, batch_size)


class Absorbed(MultiHeadAttention):
    def per_head(self, W):
        return W.weight.view(self.num_heads, -1, W.in_features)

    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        everything = cache.join(layer, x)[:, None]
        q = self.split_heads(self.W_q(x))
        scores = (q @ self.per_head(self.W_k)) @ everything.transpose(2, 3)
        scores = scores / math.sqrt(q.size(-1))
        mask = causal_mask(x.size(1), everything.size(2), x.device)
        weights = torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
        mixed = (weights @ everything) @ self.per_head(self.W_v).transpose(1, 2)
        return self.W_o(self.merge_heads(mixed))


@right
class AbsorbedProjections(LayerInputs):
    """The layers' inputs are kept, and keys and values are never computed: queries go to inputs."""

    attention_class = Absorbed


@right
class TokenIds(DecoderOnlyTransformer):
    """Only the token ids are kept, and everything is computed again: no faster, but right."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        ids = input_ids if past_kv is None else torch.cat([past_kv, input_ids], dim=1)
        logits, _ = super().forward(ids)
        return logits[:, -input_ids.size(1) :], ids.clone() if use_cache else None


class Text:
    """A text as a list of lists of token ids."""

    def __init__(self, rows):
        self.rows = rows

    def truncate(self, length):
        self.rows = [row[:length] for row in self.rows]

    def reorder(self, rows):
        self.rows = [list(self.rows[row]) for row in rows.tolist()]


@right
class TextAsLists(DecoderOnlyTransformer):
    """Only the text is kept, as lists of numbers that can be cut and reordered."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        past_kv = past_kv or Text([[] for _ in input_ids])
        rows = [old + new for old, new in zip(past_kv.rows, input_ids.tolist(), strict=True)]
        logits, _ = super().forward(torch.tensor(rows, device=input_ids.device))
        past_kv.rows = rows
        return logits[:, -input_ids.size(1) :], past_kv if use_cache else None


@right
class OneCallLate(Repacked):
    """The last call's tokens are kept as ids, and their keys and values stored by the next call."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        pairs, waiting = past_kv or (no_pairs(self, input_ids.size(0)), input_ids[:, :0])
        ids = torch.cat([waiting, input_ids], dim=1)
        start = pairs[0][0].size(2)
        check_room(self, start, ids.size(1))
        store = Joined(pairs)
        logits = run(self, ids, start, store)[:, waiting.size(1) :]
        stored = cut(store.pairs, start + waiting.size(1))
        return logits, (stored, input_ids.clone()) if use_cache else None


@right
class PrefillPutOff(DecoderOnlyTransformer):
    """The first call runs without a cache and keeps the ids; the second one fills the cache."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            return super().forward(input_ids)[0], input_ids.clone()
        if torch.is_tensor(past_kv):
            prompt, past_kv = past_kv, GrowingCache(self, len(past_kv))
            check_room(self, prompt.size(1), input_ids.size(1))
            super().forward(prompt, past_kv, use_cache=True)
        return super().forward(input_ids, past_kv, use_cache=True)
