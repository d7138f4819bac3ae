"""Other ways through the model: how it attends, and in what portions it takes its tokens."""

import math

import torch
import torch.nn.functional as F

from course_utils.attention import MultiHeadAttention, causal_mask
from course_utils.kv_cache import GrowingCache
from course_utils.transformer import DecoderOnlyTransformer

from .parts import Counted, Repacked, WithAttention, cut, right, run


class Kernel(MultiHeadAttention):
    def attend(self, q, k, v):
        if q.size(2) == k.size(2):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mask = causal_mask(q.size(2), k.size(2), q.device) if q.size(2) > 1 else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@right
class FusedKernel(WithAttention):
    """PyTorch's fused attention: causal in the prefill, a mask for chunks, none for one token."""

    attention_class = Kernel


class Online(MultiHeadAttention):
    block = 5

    def attend(self, q, k, v):
        mask = causal_mask(q.size(2), k.size(2), q.device)
        best = q.new_full((*q.shape[:3], 1), -math.inf)
        total, mixed = torch.zeros_like(best), torch.zeros_like(q)
        for start in range(0, k.size(2), self.block):
            part = slice(start, start + self.block)
            scores = q @ k[:, :, part].transpose(2, 3) / math.sqrt(q.size(3))
            scores = scores.masked_fill(~mask[:, part], -math.inf)
            higher = torch.maximum(best, scores.amax(dim=-1, keepdim=True))
            shrink, weights = torch.exp(best - higher), torch.exp(scores - higher)
            total = total * shrink + weights.sum(dim=-1, keepdim=True)
            mixed, best = mixed * shrink + weights @ v[:, :, part], higher
        return mixed / total


@right
class OnlineSoftmax(WithAttention):
    """Attention goes through the keys in blocks of 5, with a running softmax."""

    attention_class = Online


class OldAndNew(MultiHeadAttention):
    def attend(self, q, k, v):
        old = k.size(2) - q.size(2)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3))
        scores = scores.masked_fill(~causal_mask(q.size(2), k.size(2), q.device), -math.inf)
        parts = [(scores[..., :old], v[:, :, :old]), (scores[..., old:], v[:, :, old:])]
        mixed = torch.stack([part.softmax(-1) @ values for part, values in parts])
        share = torch.stack([part.logsumexp(-1) for part, _ in parts]).softmax(0)
        return (share[..., None] * mixed).sum(0)


@right
class OldAndNewMerged(WithAttention):
    """Attention to the cached and to the new tokens is computed apart, and merged by its shares."""

    attention_class = OldAndNew


class Additive(MultiHeadAttention):
    def __init__(self, d_model, num_heads):
        super().__init__(d_model, num_heads)
        self.register_buffer("future", torch.empty(0, 0), persistent=False)

    def attend(self, q, k, v):
        rows, columns = q.size(2), k.size(2)
        if columns > len(self.future):
            square = torch.full((columns, columns), -math.inf, device=q.device, dtype=q.dtype)
            self.future = square.triu(1)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.size(3))
        scores = scores + self.future[columns - rows : columns, :columns].to(scores.dtype)
        return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


@right
class MaskIsAdded(WithAttention):
    """A mask of minus infinities is added, cut from a square that grows in a buffer."""

    attention_class = Additive


class FixedRoom(Counted):
    def prepare(self):
        self.kept = [self.zeros(self.room) for _ in self.lengths]

    def write(self, layer, start, k, v):
        self.kept[layer][:, :, :, start : start + k.size(2)] = torch.stack([k, v])

    def read(self, layer, end):
        return self.kept[layer]

    def reorder(self, rows):
        self.kept = [kept[:, rows] for kept in self.kept]
        self.batch_size = len(rows)


class OverAllSlots(MultiHeadAttention):
    def forward(self, x, cache=None, layer=0):
        if cache is None:
            return super().forward(x)
        q, k, v = (self.split_heads(W(x)) for W in (self.W_q, self.W_k, self.W_v))
        start = cache.lengths[layer]
        k, v = cache.append(layer, k, v)
        position = torch.arange(start, start + x.size(1), device=x.device)
        mask = torch.arange(k.size(2), device=x.device) <= position[:, None]
        return self.W_o(self.merge_heads(F.scaled_dot_product_attention(q, k, v, mask)))


@right
class StaticShape(WithAttention):
    """Every call attends over all max_seq_len slots, with a mask that hides the empty ones."""

    attention_class = OverAllSlots

    def new_cache(self, batch_size):
        return FixedRoom(self, batch_size)


class Backwards(MultiHeadAttention):
    def attend(self, q, k, v):
        mask = causal_mask(q.size(2), k.size(2), q.device).flip(1)
        return F.scaled_dot_product_attention(q, k.flip(2), v.flip(2), mask)


@right
class KeysBackwards(WithAttention):
    """Attention looks at the keys from the newest to the oldest."""

    attention_class = Backwards


@right
class FunctionalEmbedding(Repacked):
    """Embeddings are looked up by F.embedding: no embedding module is ever called."""

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        token = F.embedding(input_ids, self.token_embedding.weight)
        return token + F.embedding(positions, self.pos_embedding.weight)


@right
class SlicedPositions(Repacked):
    """Positions are a slice of the table, and tokens a product with a one-hot matrix."""

    def embed(self, input_ids, start=0):
        weight = self.token_embedding.weight
        one_hot = F.one_hot(input_ids, len(weight)).to(weight.dtype)
        return one_hot @ weight + self.pos_embedding.weight[start : start + input_ids.size(1)]


@right
class TokenByToken(DecoderOnlyTransformer):
    """With a cache, every portion goes through the model one token at a time."""

    portion = 1

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        self.check_input(input_ids, past_kv, use_cache)
        logits = []
        for ids in input_ids.split(self.portion, dim=1):
            some, past_kv = super().forward(ids, past_kv, use_cache=True)
            logits.append(some)
        return torch.cat(logits, dim=1), past_kv


@right
class PortionsOf4(TokenByToken):
    """With a cache, every portion goes through the model four tokens at a time."""

    portion = 4


@right
class Bucketed(Repacked):
    """Portions are filled up to a multiple of 8 with tokens whose results are thrown away."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        cache = past_kv or GrowingCache(self, input_ids.size(0))
        self.check_input(input_ids, cache, use_cache)
        start, new = cache.length, input_ids.size(1)
        logits = run(self, F.pad(input_ids, (0, -new % 8)), start, cache)[:, :new]
        cache.truncate(start + new)
        return logits, cache

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions.clamp(max=self.max_seq_len - 1)
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


@right
class LogitsNotContiguous(DecoderOnlyTransformer):
    """Logits come out of a product that has the vocabulary first, and are turned round."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, past_kv = super().forward(input_ids, past_kv, use_cache)
        return logits.permute(2, 0, 1).contiguous().permute(1, 2, 0), past_kv


@right
class LastTokenTwice(Repacked):
    """Each call runs the last token of the call before again, and drops what it gives."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if past_kv is None:
            logits, pairs = super().forward(input_ids, None, use_cache)
        else:
            pairs, last = past_kv
            pairs = cut(pairs, pairs[0][0].size(2) - 1)
            logits, pairs = super().forward(torch.cat([last, input_ids], dim=1), pairs, use_cache)
            logits = logits[:, 1:]
        return logits, (pairs, input_ids[:, -1:].clone()) if use_cache else None
