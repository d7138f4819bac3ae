"""Prompts of different length in one batch, kept otherwise than the course does it."""

import torch
import torch.nn.functional as F

from course_utils.attention import MultiHeadAttention
from course_utils.kv_cache import GrowingCache, check_rollback
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Counted, WithAttention, check_room, right, twin


class Shifted(Counted):
    """A row's position p is in slot p; columns of padding are all written to a slot beyond."""

    def __init__(self, model, padding):
        super().__init__(model, len(padding))
        self.padding = padding.clone()

    def prepare(self):
        self.kept = [self.zeros(self.room + 1) for _ in self.lengths]

    def positions(self, start, end):
        """Positions (B, columns) of columns from `start` to `end`; negative for padding."""
        columns = torch.arange(start, end, device=self.like["device"])
        return columns - self.padding[:, None]

    def write(self, layer, start, k, v):
        slots = self.positions(start, start + k.size(2))
        slots = torch.where(slots < 0, self.room, slots)
        rows = torch.arange(self.batch_size, device=k.device)[:, None]
        for part, tensor in enumerate((k, v)):
            self.kept[layer][part, rows, :, slots] = tensor.transpose(1, 2)

    def read(self, layer, end):
        return self.kept[layer]

    def reorder(self, rows):
        self.kept = [kept[:, rows] for kept in self.kept]
        self.padding = self.padding[rows]
        self.batch_size = len(rows)


class ToOwnSlots(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        start = cache.lengths[layer]
        k, v = cache.append(layer, k, v)
        position = cache.positions(start, start + x.size(1)).clamp(min=0)
        mask = torch.arange(k.size(2), device=x.device) <= position[:, None, :, None]
        return self.W_o(self.merge_heads(F.scaled_dot_product_attention(q, k, v, mask)))


@right
class PaddingOnTheRight(WithAttention):
    """Padding that comes in on the left is not kept: each row has its first token in slot 0."""

    attention_class = ToOwnSlots

    def padded_cache(self, padding):
        return Shifted(self, padding)

    def new_cache(self, batch_size):
        return Shifted(self, torch.zeros(batch_size, dtype=torch.long, device=self.device))

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        past_kv = past_kv or self.new_cache(input_ids.size(0))
        self.check_input(input_ids, past_kv, use_cache)
        start = past_kv.length
        position = past_kv.positions(start, start + input_ids.size(1)).clamp(min=0)
        x = self.token_embedding(input_ids) + self.pos_embedding(position)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv


class Ragged:
    """A cache for each row, which has only what is real, and the number of columns so far."""

    def __init__(self, caches, padding):
        self.caches, self.padding, self.columns = caches, padding, 0

    def truncate(self, length):
        check_rollback(length, self.columns)
        self.columns = length
        for cache, padding in zip(self.caches, self.padding, strict=True):
            cache.truncate(max(0, length - padding))

    def reorder(self, rows):
        self.caches = [twin(self.caches[row]) for row in rows.tolist()]
        self.padding = [self.padding[row] for row in rows.tolist()]


@right
class PaddingLeftOut(DecoderOnlyTransformer):
    """Each row of a padded batch is run by itself, without its padding, whose logits are NaN."""

    def padded_cache(self, padding):
        return Ragged([GrowingCache(self, 1) for _ in padding], padding.tolist())

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not isinstance(past_kv, Ragged):
            return super().forward(input_ids, past_kv, use_cache)
        new = input_ids.size(1)
        check_room(self, past_kv.columns, new)
        vocab_size = self.token_embedding.num_embeddings
        shape = (*input_ids.shape, vocab_size)
        logits = torch.full(shape, torch.nan, dtype=self.dtype, device=self.device)
        for row, (cache, padding) in enumerate(zip(past_kv.caches, past_kv.padding, strict=True)):
            skipped = min(max(0, padding - past_kv.columns), new)
            if skipped < new:
                ids = input_ids[row : row + 1, skipped:]
                logits[row, skipped:] = super().forward(ids, cache, use_cache)[0][0]
        past_kv.columns += new
        return logits, past_kv
