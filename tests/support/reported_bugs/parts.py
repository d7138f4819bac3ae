"""What the wrong models are built on: caches, attention and loops that are right themselves."""

import torch

from course_utils.attention import MultiHeadAttention, attention, causal_mask
from course_utils.generation import check_request, next_token
from course_utils.kv_cache import GrowingCache, PreallocatedCache, check_rollback
from course_utils.transformer import DecoderOnlyTransformer


class Counted(GrowingCache):
    """Counts positions apart from what is held."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.positions = [0] * len(self.keys)

    @property
    def length(self):
        return self.positions[0]

    def append(self, layer, k, v):
        self.positions[layer] += k.size(2)
        return super().append(layer, k, v)

    def truncate(self, length):
        super().truncate(length)
        self.positions = [length] * len(self.positions)

    def hold(self, length):
        """Forget all but the first `length` columns, and leave the count alone."""
        self.keys = [keys[:, :, :length] for keys in self.keys]
        self.values = [values[:, :, :length] for values in self.values]

    def insert_zeros(self, layer, columns):
        """As many columns of zeros after what is held."""
        b, h, _, d = self.keys[layer].shape
        zeros = self.keys[layer].new_zeros(b, h, columns, d)
        super().append(layer, zeros, zeros)


class Flushed(PreallocatedCache):
    """Every full block of 4 positions is copied into a closed store, and read from there."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.closed = [self.keys.clone(), self.values.clone()]
        self.frontier = [0] * len(self.lengths)

    def append(self, layer, k, v):
        open_parts = super().append(layer, k, v)
        end, done = self.lengths[layer], self.frontier[layer]
        whole = self.frontier[layer] = max(done, end // 4 * 4)
        found = []
        for closed, part in zip(self.closed, open_parts, strict=True):
            closed[layer, :, :, done:whole] = part[:, :, done:whole]
            found.append(torch.cat([closed[layer, :, :, : min(whole, end)], part[:, :, whole:]], 2))
        return found

    def reorder(self, rows):
        super().reorder(rows)
        self.closed = [closed[:, rows] for closed in self.closed]

    def truncate(self, length):
        super().truncate(length)
        self.frontier = [min(done, length // 4 * 4) for done in self.frontier]


class SeenCache(PreallocatedCache):
    """Remembers the token ids too."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.seen = torch.empty(batch_size, 0, dtype=torch.long, device=model.device)
        self.end_token = model.token_embedding.num_embeddings - 1

    def reorder(self, rows):
        super().reorder(rows)
        self.seen = self.seen[rows]

    def truncate(self, length):
        super().truncate(length)
        self.seen = self.seen[:, :length]


class MaskedAttention(MultiHeadAttention):
    """On a cache that holds something, `allowed` says what may be looked at."""

    def forward(self, x, cache=None, layer=0):
        stored = 0 if cache is None else cache.lengths[layer]
        if not stored:
            return super().forward(x, cache, layer)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        k, v = cache.append(layer, k, v)
        mask = self.allowed(cache, stored, q.size(2), k.size(2)).to(q.device)
        return self.W_o(self.merge_heads(attention(q, k, v, mask)))

    def allowed(self, cache, stored, num_queries, num_keys):
        return causal_mask(num_queries, num_keys)


class Loop(DecoderOnlyTransformer):
    """Generates in a loop of its own."""

    def generate(self, input_ids, max_new_tokens, temperature=1.0, use_cache=True, **options):
        if not use_cache or set(options) - {"generator"}:
            return super().generate(input_ids, max_new_tokens, temperature, use_cache, **options)
        check_request(self, input_ids, max_new_tokens, temperature)
        return self.loop(input_ids, max_new_tokens, temperature, **options)

    @torch.no_grad()
    def loop(self, ids, steps, temperature, generator=None):
        prompt = ids
        new, cache = self.begin(ids, steps)
        for _ in range(steps):
            logits, cache = self(new, past_kv=cache, use_cache=True)
            token = next_token(logits[:, -1], temperature, generator=generator)[:, None]
            ids = torch.cat([ids, token], dim=1)
            new, cache = self.next_input(token, logits, cache, ids, prompt)
        self.end(ids, cache)
        return ids

    def begin(self, ids, steps):
        """What goes in first, and into which cache."""
        return ids, None

    def next_input(self, token, logits, cache, ids, prompt):
        return token, cache

    def end(self, ids, cache):
        pass


__all__ = [
    "Counted",
    "Flushed",
    "GrowingCache",
    "Loop",
    "MaskedAttention",
    "PreallocatedCache",
    "SeenCache",
    "check_rollback",
]
